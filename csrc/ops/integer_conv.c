/* Convolution of integer weights over spikes (kernels/integer_rows.h), to a current or through neurons to spikes. */
#include "integer_neurons.h"
#include "spike_tiles.h"

/* Memory of one thread. Sums are [out block][target][DSR_INTEGER_ROW]; `wide` are those of 32 bits, of the whole tile
 * where its blocks do not fit 16 bits together, else of an output pixel. */
typedef struct {
    tile_lists lists;
    int16_t *sums, *table;
    int32_t *wide;
} workspace;

/* What is convolved, and what becomes of it: a current, or spikes. */
typedef struct {
    const uint32_t *words;
    const int16_t *packed;
    const dsr_row_code *code;
    size_t together, rounds; /* blocks whose sums fit 16 bits, and how often these are to be widened */
    unsigned shift;
    int32_t *current;
    const integer_neurons *neurons; /* NULL: a current */
} integer_conv;

static int make_workspace(workspace *w, const spike_conv_plan *p, const integer_conv *c) {
    size_t lanes = p->steps * p->piece, targets = p->tile_y * p->tile_x * lanes;
    int listed = make_lists(&w->lists, p, c->code);
    w->sums = dsr_scratch(p->out_blocks * targets * DSR_INTEGER_ROW, sizeof *w->sums);
    w->table = dsr_scratch((1 + p->block_words * p->taps * c->code->rows) * DSR_INTEGER_ROW, sizeof *w->table);
    w->wide = dsr_scratch((c->rounds > 1 ? p->out_blocks * targets : lanes) * DSR_INTEGER_ROW, sizeof *w->wide);
    return listed && w->sums && w->table && w->wide;
}

static void free_workspace(workspace *w) {
    free_lists(&w->lists);
    dsr_release(w->sums);
    dsr_release(w->table);
    dsr_release(w->wide);
}

/* Sums of the rows that the spikes of a tile select, of blocks from .. to, in w->sums. */
static void sum_blocks(const integer_conv *c, const spike_conv_plan *p, workspace *w, const tile *t, out_range outs,
                       size_t from, size_t to) {
    size_t targets = t->ny * t->nx * t->nl;
    for (size_t block = from; block < to; block++) {
        size_t first = block * p->block_words, last = least(p->words, first + p->block_words);
        list_rows(c->words, p, t, c->code, &w->lists, first, last);
        for (size_t out = outs.from; out < outs.to; out++) {
            int16_t *sums = w->sums + (out - outs.from) * targets * DSR_INTEGER_ROW;
            const int16_t *rows = c->packed + (out * p->blocks + block) * p->block_rows * DSR_INTEGER_ROW;
            if (!reaches(p, out, first, last)) {
                if (block == from)
                    memset(sums, 0, targets * DSR_INTEGER_ROW * sizeof *sums);
                continue;
            }
            if (c->code->table_bits > 1) {
                dsr_kernel->build_integer_table(rows + DSR_INTEGER_ROW, p->block_words * DSR_WORD / c->code->table_bits,
                                                c->code->table_bits, p->taps, w->table);
                rows = w->table;
            }
            dsr_kernel->sum_integer_rows(rows, w->lists.lists, w->lists.ends, targets, block == from, sums);
        }
    }
}

static const int32_t nothing[DSR_INTEGER_ROW] __attribute__((aligned(64)));

/* Sums of an output pixel, the i-th of the tile, as 32 bits: with those of earlier rounds, or with the bias and the
 * current so far. sums NULL: 0. */
static void widen(const integer_conv *c, const spike_conv_plan *p, const int16_t *sums, const tile *t, size_t out,
                  size_t i, int first, int32_t *to) {
    if (!first) {
        dsr_kernel->widen_integer_rows(sums, c->shift, nothing, to, t->nl, to);
        return;
    }
    size_t pixels = p->conv.y.out * p->conv.x.out, at = out * pixels + output_pixel(p, t, i), lanes = p->conv.lanes;
    const int32_t *current = c->neurons ? c->neurons->after->current : c->current;
    int one_step = c->neurons && c->neurons->after->one_step;
    for (size_t step = 0; step < p->steps; step++) {
        size_t lane = (one_step ? at * p->run : at * lanes + step * p->run) + t->l0, row = step * t->piece;
        dsr_kernel->widen_integer_rows(sums ? sums + row * DSR_INTEGER_ROW : NULL, c->shift,
                                       c->neurons ? channel_row(c->neurons, out, BIAS) : nothing,
                                       current ? current + lane * DSR_INTEGER_ROW : NULL, t->piece,
                                       to + row * DSR_INTEGER_ROW);
    }
}

static void write_sums(const integer_conv *c, const spike_conv_plan *p, const int32_t *wide, const tile *t, size_t out,
                       size_t i) {
    size_t pixels = p->conv.y.out * p->conv.x.out, pixel = output_pixel(p, t, i);
    if (c->neurons)
        fire_neurons(c->neurons, wide, out, pixel, t->l0, t->piece);
    else
        memcpy(c->current + ((out * pixels + pixel) * p->conv.lanes + t->l0) * DSR_INTEGER_ROW, wide,
               t->nl * DSR_INTEGER_ROW * sizeof *wide);
}

static void convolve_tile(const integer_conv *c, const spike_conv_plan *p, workspace *w, const tile *t,
                          out_range outs) {
    size_t pixels = t->ny * t->nx, row = t->nl * DSR_INTEGER_ROW;
    for (size_t round = 0; round < c->rounds; round++) {
        size_t from = round * c->together, to = least(p->blocks, from + c->together);
        sum_blocks(c, p, w, t, outs, from, to);
        for (size_t i = 0; i < (outs.to - outs.from) * pixels; i++) {
            size_t out = outs.from + i / pixels;
            int32_t *wide = c->rounds > 1 ? w->wide + i * row : w->wide;
            widen(c, p, from < to ? w->sums + i * row : NULL, t, out, i % pixels, !round, wide);
            if (round + 1 == c->rounds)
                write_sums(c, p, wide, t, out, i % pixels);
        }
    }
}

static dsr_status convolve(integer_conv *c, const spike_conv_plan *p) {
    if (!lists_fit(p, c->code))
        return DSR_TOO_LARGE;
    c->rounds = p->blocks ? dsr_blocks(p->blocks, c->together) : 1;
    /* each task lists the rows of its tile for itself, so there are no more tasks than threads need */
    size_t tiles = count_tiles(p), splits = count_splits(p, (size_t)dsr_get_threads());
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(work_of(p)))
    {
        workspace w;
        if (!make_workspace(&w, p, c)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp barrier
        if (status == DSR_OK) {
#pragma omp for schedule(dynamic)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)(tiles * splits); i++) {
                tile t;
                make_tile(p, (size_t)i / splits, &t);
                convolve_tile(c, p, &w, &t, range_of(p, (size_t)i % splits, splits));
            }
        }
        free_workspace(&w);
    }
    return status;
}

size_t dsr_integer_blocks(dsr_conv conv, size_t *block_rows) {
    spike_conv_plan p = make_blocks(conv);
    *block_rows = p.block_rows;
    return p.blocks;
}

dsr_status dsr_integer_conv2d_spikes(const uint32_t *words, dsr_integer_weights weights, int32_t *rows, dsr_conv conv,
                                     unsigned shift, unsigned table_bits) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, 1, DSR_INTEGER_ROW);
    integer_conv c = {words, weights.packed, dsr_row_code_of(table_bits), weights.together, 0, shift, rows, NULL};
    return convolve(&c, &p);
}

dsr_status dsr_integer_conv2d_neuron_spikes(const uint32_t *words, dsr_integer_weights weights, uint32_t *output,
                                            dsr_conv conv, size_t timesteps, unsigned shift, unsigned table_bits,
                                            dsr_after_integer_conv after) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, timesteps, DSR_INTEGER_ROW);
    integer_neurons neurons;
    if (!make_neurons(&neurons, &conv, timesteps, output, &after))
        return DSR_NO_MEMORY;
    integer_conv c = {words, weights.packed, dsr_row_code_of(table_bits), weights.together, 0, shift, NULL, &neurons};
    dsr_status status = convolve(&c, &p);
    dsr_release(neurons.channels);
    return status;
}
