/* Convolution of integer weights over spikes (kernels/integer_rows.h), to a current or through neurons to spikes. */
#include "integer_neurons.h"
#include "spike_tiles.h"

/* Memory of one thread. */
typedef struct {
    tile_lists lists;
    int32_t *sums; /* [out block][target][DSR_INTEGER_ROW] */
    int16_t *table;
} workspace;

static int make_workspace(workspace *w, const spike_conv_plan *p, const dsr_row_code *code) {
    size_t targets = p->tile_y * p->tile_x * p->steps * p->piece;
    int listed = make_lists(&w->lists, p, code);
    w->sums = dsr_scratch(p->out_blocks * targets * DSR_INTEGER_ROW, sizeof *w->sums);
    w->table = dsr_scratch((1 + p->block_words * p->taps * code->rows) * DSR_INTEGER_ROW, sizeof *w->table);
    return listed && w->sums && w->table;
}

static void free_workspace(workspace *w) {
    free_lists(&w->lists);
    dsr_release(w->sums);
    dsr_release(w->table);
}

/* What becomes of the sums of a tile: a current, or spikes. */
typedef struct {
    int32_t *current;
    const integer_neurons *neurons; /* NULL: a current */
} tile_output;

static const int32_t nothing[DSR_INTEGER_ROW] __attribute__((aligned(64)));

/* Bias and the current so far, or the current that the sums are added to. */
static void start_sums(const tile_output *o, const spike_conv_plan *p, const tile *t, int32_t *sums) {
    size_t pixels = p->conv.y.out * p->conv.x.out, lanes = p->conv.lanes;
    for (size_t out = 0; out < p->out_blocks; out++)
        for (size_t i = 0; i < t->ny * t->nx; i++) {
            size_t at = out * pixels + output_pixel(p, t, i);
            for (size_t step = 0; step < p->steps; step++, sums += t->piece * DSR_INTEGER_ROW)
                if (o->current)
                    dsr_kernel->start_integer_rows(
                        nothing, o->current + (at * lanes + step * p->run + t->l0) * DSR_INTEGER_ROW, t->piece, sums);
                else {
                    const int32_t *current = o->neurons->after->current;
                    size_t lane = o->neurons->after->one_step ? at * p->run : at * lanes + step * p->run;
                    dsr_kernel->start_integer_rows(channel_row(o->neurons, out, BIAS),
                                                   current ? current + (lane + t->l0) * DSR_INTEGER_ROW : NULL,
                                                   t->piece, sums);
                }
        }
}

/* Adds the sums of the rows that the spikes of a tile select. */
static void sum_tile(const uint32_t *words, const int16_t *packed, const spike_conv_plan *p, const dsr_row_code *code,
                     unsigned shift, workspace *w, const tile *t) {
    size_t targets = t->ny * t->nx * t->nl;
    for (size_t block = 0; block < p->blocks; block++) {
        size_t from = block * p->block_words, to = least(p->words, from + p->block_words);
        list_rows(words, p, t, code, &w->lists, from, to);
        for (size_t out = 0; out < p->out_blocks; out++) {
            const int16_t *rows = packed + (out * p->blocks + block) * p->block_rows * DSR_INTEGER_ROW;
            if (!reaches(p, out, from, to))
                continue;
            if (code->table_bits > 1) {
                dsr_kernel->build_integer_table(rows + DSR_INTEGER_ROW, p->block_words * DSR_WORD / code->table_bits,
                                                code->table_bits, p->taps, w->table);
                rows = w->table;
            }
            dsr_kernel->sum_integer_rows(rows, w->lists.lists, w->lists.ends, targets, shift,
                                         w->sums + out * targets * DSR_INTEGER_ROW);
        }
    }
}

/* The sums of an output pixel, the i-th of the tile, and an out block. */
static void write_sums(const tile_output *o, const spike_conv_plan *p, const int32_t *sums, const tile *t, size_t out,
                       size_t i) {
    size_t pixels = p->conv.y.out * p->conv.x.out, pixel = output_pixel(p, t, i);
    if (o->neurons)
        fire_neurons(o->neurons, sums, out, pixel, t->l0, t->piece);
    else
        memcpy(o->current + ((out * pixels + pixel) * p->conv.lanes + t->l0) * DSR_INTEGER_ROW, sums,
               t->nl * DSR_INTEGER_ROW * sizeof *sums);
}

static dsr_status convolve(const uint32_t *words, const int16_t *packed, const spike_conv_plan *p, unsigned shift,
                           unsigned table_bits, const tile_output *to) {
    const dsr_row_code *code = dsr_row_code_of(table_bits);
    if (!lists_fit(p, code))
        return DSR_TOO_LARGE;
    size_t tiles = p->tiles_y * p->tiles_x * p->tiles_l;
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(p->conv.y.out * p->conv.x.out * p->conv.lanes * p->conv.out_channels))
    {
        workspace w;
        if (!make_workspace(&w, p, code)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp barrier
        if (status == DSR_OK) {
#pragma omp for schedule(dynamic)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)tiles; i++) {
                tile t;
                make_tile(p, (size_t)i, &t);
                start_sums(to, p, &t, w.sums);
                sum_tile(words, packed, p, code, shift, &w, &t);
                const int32_t *sums = w.sums;
                for (size_t out = 0; out < p->out_blocks; out++)
                    for (size_t k = 0; k < t.ny * t.nx; k++, sums += t.nl * DSR_INTEGER_ROW)
                        write_sums(to, p, sums, &t, out, k);
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

dsr_status dsr_integer_conv2d_spikes(const uint32_t *words, const int16_t *packed, int32_t *rows, dsr_conv conv,
                                     unsigned shift, unsigned table_bits) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, 1, DSR_INTEGER_ROW);
    tile_output to = {.current = rows};
    return convolve(words, packed, &p, shift, table_bits, &to);
}

dsr_status dsr_integer_conv2d_neuron_spikes(const uint32_t *words, const int16_t *packed, uint32_t *output,
                                            dsr_conv conv, size_t timesteps, unsigned shift, unsigned table_bits,
                                            dsr_after_integer_conv after) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, timesteps, DSR_INTEGER_ROW);
    integer_neurons neurons;
    if (!make_neurons(&neurons, &conv, timesteps, output, &after))
        return DSR_NO_MEMORY;
    tile_output to = {.neurons = &neurons};
    dsr_status status = convolve(words, packed, &p, shift, table_bits, &to);
    dsr_release(neurons.channels);
    return status;
}
