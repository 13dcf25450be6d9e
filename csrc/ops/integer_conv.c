/* Convolution of integer weights over spikes (kernels/integer_rows.h), to a current or through neurons to spikes. */
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
    /* or */
    uint32_t *spikes;
    const int32_t *channels; /* rows of each out block: bias, shortcut weight, reset, fire */
    const dsr_after_integer_conv *after;
} tile_output;

enum { BIAS, SHORTCUT_WEIGHT, RESET, FIRE, CHANNEL_ROWS };

static const int32_t *channel_row(const tile_output *o, size_t out, size_t row) {
    return o->channels + (out * CHANNEL_ROWS + row) * DSR_INTEGER_ROW;
}

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
                    const int32_t *current = o->after->current;
                    size_t lane = o->after->one_step ? at * p->run : at * lanes + step * p->run;
                    dsr_kernel->start_integer_rows(channel_row(o, out, BIAS),
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
    size_t pixels = p->conv.y.out * p->conv.x.out, pixel = output_pixel(p, t, i), words = DSR_INTEGER_ROW / DSR_WORD;
    if (o->current) {
        memcpy(o->current + ((out * pixels + pixel) * p->conv.lanes + t->l0) * DSR_INTEGER_ROW, sums,
               t->nl * DSR_INTEGER_ROW * sizeof *sums);
        return;
    }
    for (size_t half = 0; half < words && (out * words + half) * DSR_WORD < p->conv.out_channels; half++) {
        size_t word = out * words + half, at = (word * pixels + pixel) * p->conv.lanes + t->l0;
        size_t first = half * DSR_WORD, existing = dsr_block_size(p->conv.out_channels, DSR_WORD, word);
        int16_t *potentials = o->after->potentials;
        dsr_integer_neurons neurons = {.reset = channel_row(o, out, RESET) + first,
                                       .fire = channel_row(o, out, FIRE) + first,
                                       .shortcut_weight = channel_row(o, out, SHORTCUT_WEIGHT) + first,
                                       .shortcut = o->after->shortcut ? o->after->shortcut + at : NULL,
                                       .exists = existing == DSR_WORD ? 0xffffffffu : (1u << existing) - 1,
                                       .decay = o->after->decay};
        if (potentials)
            potentials += ((out * pixels + pixel) * p->run + t->l0) * DSR_INTEGER_ROW + first;
        dsr_kernel->integer_neuron_rows(sums + first, o->spikes + at, potentials, p->steps, t->piece, p->run, &neurons);
    }
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

/* Channels of an out block, or 0 where there is no array or no channel. */
static void pad_channels(const int32_t *from, size_t channels, size_t out, int32_t *to) {
    for (size_t i = 0; i < DSR_INTEGER_ROW; i++)
        to[i] = from && out * DSR_INTEGER_ROW + i < channels ? from[out * DSR_INTEGER_ROW + i] : 0;
}

dsr_status dsr_integer_conv2d_neuron_spikes(const uint32_t *words, const int16_t *packed, uint32_t *output,
                                            dsr_conv conv, size_t timesteps, unsigned shift, unsigned table_bits,
                                            dsr_after_integer_conv after) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, timesteps, DSR_INTEGER_ROW);
    int32_t *channels = dsr_scratch(p.out_blocks * CHANNEL_ROWS * DSR_INTEGER_ROW, sizeof *channels);
    if (!channels)
        return DSR_NO_MEMORY;
    const int32_t *from[CHANNEL_ROWS] = {
        [BIAS] = after.bias, [SHORTCUT_WEIGHT] = after.shortcut_weight, [RESET] = after.reset, [FIRE] = after.fire};
    for (size_t out = 0; out < p.out_blocks; out++)
        for (size_t row = 0; row < CHANNEL_ROWS; row++)
            pad_channels(from[row], conv.out_channels, out, channels + (out * CHANNEL_ROWS + row) * DSR_INTEGER_ROW);
    tile_output to = {.spikes = output, .channels = channels, .after = &after};
    dsr_status status = convolve(words, packed, &p, shift, table_bits, &to);
    dsr_release(channels);
    return status;
}
