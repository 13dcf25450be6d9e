/* Convolution over spikes as sums of rows (kernels/rows.h), to a current or through neurons to spikes. */
#include "row_code.h"

#include <stdlib.h>

/* Blocking, measured on Zen 3 (32 KiB and 512 KiB of cache per core): squares of 4x4 output pixels with about 1,280
 * lanes in all, so that input words are expanded once for most taps; rows of 9 word-taps, 36 KiB before groups. */
enum { TILE_SIDE = 4, TILE_TARGETS = 1280, WORD_TAPS = 9 };
/* Input pixels between the outputs of a tile: a large stride makes tiles of one pixel. */
enum { MOST_HALO = 64 };

/* How a convolution is cut. A block is some words of input channels with all their taps, for DSR_ROW output channels:
 * what the first two caches hold while a tile of targets passes by. A tile is a rectangle of output pixels and `piece`
 * lanes out of each of `steps` runs of lanes: one run of all lanes, or, for neurons, the samples of every time step.
 * Its input pixels are the halo. */
typedef struct {
    dsr_conv conv;
    size_t taps, words, block_words, blocks, block_rows, out_blocks;
    size_t steps, run, piece, tile_y, tile_x, tiles_y, tiles_x, tiles_l, halo_y, halo_x;
} spike_conv_plan;

static spike_conv_plan make_plan(dsr_conv conv, size_t steps) {
    spike_conv_plan p = {
        .conv = conv, .taps = conv.kernel_h * conv.kernel_w, .steps = steps, .run = conv.lanes / steps};
    p.words = dsr_blocks(conv.in_channels, DSR_WORD);
    p.block_words = least(p.words ? p.words : 1, WORD_TAPS / p.taps ? WORD_TAPS / p.taps : 1);
    p.blocks = dsr_blocks(p.words, p.block_words);
    p.block_rows = 1 + DSR_WORD * p.block_words * p.taps;
    p.out_blocks = dsr_blocks(conv.out_channels, DSR_ROW);
    size_t side = TILE_SIDE;
    while (side > 1 && ((side - 1) * conv.stride > MOST_HALO || side * side * steps > TILE_TARGETS))
        side--;
    p.tile_y = least(conv.out_height, side);
    p.tile_x = least(conv.out_width, side);
    size_t piece = TILE_TARGETS / (p.tile_y * p.tile_x) / steps;
    p.piece = least(p.run, piece >= 16 ? piece / 16 * 16 : piece ? piece : 1);
    p.tiles_y = dsr_blocks(conv.out_height, p.tile_y);
    p.tiles_x = dsr_blocks(conv.out_width, p.tile_x);
    p.tiles_l = dsr_blocks(p.run, p.piece);
    p.halo_y = (p.tile_y - 1) * conv.stride + conv.kernel_h;
    p.halo_x = (p.tile_x - 1) * conv.stride + conv.kernel_w;
    return p;
}

/* Weights as rows, [1 + 32 block_words * taps][DSR_ROW]: first a row of zeros; missing channels are zeros too. */
static void pack_rows(const float *weight, const spike_conv_plan *p, size_t out_block, size_t block, float *rows) {
    size_t depth = p->conv.in_channels * p->taps, at = block * (p->block_rows - 1),
           n = least(p->block_rows - 1, depth - at);
    memset(rows, 0, DSR_ROW * sizeof *rows);
    dsr_kernel->lanes_to_rows(weight + out_block * DSR_ROW * depth + at, n,
                              dsr_block_size(p->conv.out_channels, DSR_ROW, out_block), depth, rows + DSR_ROW);
    memset(rows + (1 + n) * DSR_ROW, 0, (p->block_rows - 1 - n) * DSR_ROW * sizeof *rows);
}

/* Memory of one thread. */
typedef struct {
    uint8_t *rows, *counts; /* expanded words, [word of a block][halo pixel][lane] */
    uint16_t *lists;
    uint32_t *ends;
    dsr_row_source *sources;
    float *sums, *table; /* sums [out block][target][DSR_ROW] */
} workspace;

/* Offsets in the list of one target at most, padding included. */
static size_t longest_list(const spike_conv_plan *p, const dsr_row_code *code) {
    return p->block_words * p->taps * (DSR_WORD / code->group) + 4;
}

static int make_workspace(workspace *w, const spike_conv_plan *p, const dsr_row_code *code) {
    size_t lanes = p->steps * p->piece, targets = p->tile_y * p->tile_x * lanes;
    size_t halo = p->block_words * p->halo_y * p->halo_x * lanes;
    *w = (workspace){.rows = dsr_scratch(halo + 2, 32),
                     .counts = dsr_scratch(halo, 1),
                     .lists = dsr_scratch(targets * longest_list(p, code) + 64, sizeof *w->lists),
                     .ends = dsr_scratch(targets, sizeof *w->ends),
                     .sources = dsr_scratch(p->block_words * p->taps, sizeof *w->sources),
                     .sums = dsr_scratch(p->out_blocks * targets * DSR_ROW, sizeof *w->sums),
                     .table = dsr_scratch((1 + p->block_words * p->taps * code->rows) * DSR_ROW, sizeof *w->table)};
    return w->rows && w->counts && w->lists && w->ends && w->sources && w->sums && w->table;
}

static void free_workspace(workspace *w) {
    free(w->rows);
    free(w->counts);
    free(w->lists);
    free(w->ends);
    free(w->sources);
    free(w->sums);
    free(w->table);
}

/* Output pixels of a tile, and `piece` lanes of each run from lane l0 of it on: nl lanes in all. */
typedef struct {
    size_t y0, x0, l0, ny, nx, piece, nl;
} tile;

static tile make_tile(const spike_conv_plan *p, size_t index) {
    tile t = {.l0 = index % p->tiles_l * p->piece,
              .x0 = index / p->tiles_l % p->tiles_x * p->tile_x,
              .y0 = index / p->tiles_l / p->tiles_x * p->tile_y};
    t.piece = least(p->piece, p->run - t.l0);
    t.nl = p->steps * t.piece;
    t.nx = least(p->tile_x, p->conv.out_width - t.x0);
    t.ny = least(p->tile_y, p->conv.out_height - t.y0);
    return t;
}

/* Input pixel of a halo position; outside the image (unsigned: also above and left of it) SIZE_MAX. */
static size_t input_pixel(const dsr_conv *conv, const tile *t, size_t halo_y, size_t halo_x) {
    size_t y = t->y0 * conv->stride + halo_y - conv->padding, x = t->x0 * conv->stride + halo_x - conv->padding;
    return y < conv->height && x < conv->width ? y * conv->width + x : SIZE_MAX;
}

/* Lists of all targets of a tile for the words from .. to. */
static void list_rows(const uint32_t *words, const spike_conv_plan *p, const tile *t, const dsr_row_code *code,
                      workspace *w, size_t from, size_t to) {
    const dsr_conv *conv = &p->conv;
    size_t pixels = conv->height * conv->width, halo = p->halo_y * p->halo_x * t->nl;
    for (size_t word = from; word < to; word++)
        for (size_t hy = 0; hy < p->halo_y; hy++)
            for (size_t hx = 0; hx < p->halo_x; hx++) {
                size_t pixel = input_pixel(conv, t, hy, hx);
                if (pixel == SIZE_MAX)
                    continue;
                size_t at = (word - from) * halo + (hy * p->halo_x + hx) * t->nl;
                const uint32_t *lanes = words + (word * pixels + pixel) * conv->lanes + t->l0;
                /* runs in order: a call writes a few bytes beyond its own, which the next one overwrites */
                for (size_t i = 0; i < p->steps; i++, lanes += p->run, at += t->piece)
                    dsr_kernel->expand_words(code, lanes, t->piece, w->rows + 32 * at, w->counts + at);
            }
    uint32_t end = 0;
    for (size_t i = 0; i < t->ny * t->nx; i++) {
        size_t count = 0;
        for (size_t word = from; word < to; word++)
            for (size_t tap = 0; tap < p->taps; tap++) {
                size_t hy = i / t->nx * conv->stride + tap / conv->kernel_w;
                size_t hx = i % t->nx * conv->stride + tap % conv->kernel_w;
                if (input_pixel(conv, t, hy, hx) == SIZE_MAX)
                    continue;
                size_t at = (word - from) * halo + (hy * p->halo_x + hx) * t->nl;
                w->sources[count++] =
                    (dsr_row_source){.rows = w->rows + 32 * at,
                                     .counts = w->counts + at,
                                     .first = row_offset(1 + (word - from) * p->taps * code->rows + tap)};
            }
        end =
            dsr_kernel->build_lists(w->sources, count, row_offset(p->taps), t->nl, w->lists, end, w->ends + i * t->nl);
    }
}

/* Sums of the rows that the spikes of a tile select, in w->sums. */
static void sum_tile(const uint32_t *words, const float *packed, const spike_conv_plan *p, const dsr_row_code *code,
                     workspace *w, const tile *t) {
    size_t targets = t->ny * t->nx * t->nl;
    memset(w->sums, 0, p->out_blocks * targets * DSR_ROW * sizeof *w->sums);
    for (size_t block = 0; block < p->blocks; block++) {
        size_t from = block * p->block_words;
        list_rows(words, p, t, code, w, from, least(p->words, from + p->block_words));
        for (size_t out = 0; out < p->out_blocks; out++) {
            const float *rows = packed + (out * p->blocks + block) * p->block_rows * DSR_ROW;
            if (code->group > 1) {
                dsr_kernel->build_table(rows + DSR_ROW, p->block_words * DSR_WORD / code->group, code->group, p->taps,
                                        w->table);
                rows = w->table;
            }
            dsr_kernel->sum_rows(rows, w->lists, w->ends, targets, w->sums + out * targets * DSR_ROW);
        }
    }
}

/* What becomes of the sums of a tile: a current, or spikes. */
typedef struct {
    float *current;
    const float *bias;
    float amplitude;
    int accumulate;
    /* or */
    uint32_t *spikes;
    const dsr_row_current *rows; /* one for each out block, without its shortcut */
    const dsr_after_conv *after;
} tile_output;

static void write_tile(const tile_output *o, const spike_conv_plan *p, const workspace *w, const tile *t) {
    const dsr_conv *conv = &p->conv;
    size_t targets = t->ny * t->nx * t->nl, pixels = conv->out_height * conv->out_width;
    for (size_t out = 0; out < p->out_blocks; out++)
        for (size_t i = 0; i < t->ny * t->nx; i++) {
            const float *sums = w->sums + (out * targets + i * t->nl) * DSR_ROW;
            size_t pixel = (t->y0 + i / t->nx) * conv->out_width + t->x0 + i % t->nx, c = out * DSR_ROW;
            if (o->spikes) {
                size_t at = (out * pixels + pixel) * conv->lanes + t->l0;
                dsr_row_current row = o->rows[out];
                row.shortcut = o->after->shortcut ? o->after->shortcut + at : NULL;
                dsr_kernel->neuron_rows(sums, o->spikes + at, p->steps, t->piece, p->run, &row, &o->after->neuron);
            } else
                dsr_kernel->rows_to_lanes(sums, t->nl, dsr_block_size(conv->out_channels, DSR_ROW, out),
                                          o->bias ? o->bias + c : NULL, o->amplitude,
                                          o->current + (c * pixels + pixel) * conv->lanes + t->l0, pixels * conv->lanes,
                                          o->accumulate);
        }
}

static dsr_status convolve(const uint32_t *words, const float *weight, const spike_conv_plan *p, unsigned group,
                           const tile_output *to) {
    dsr_row_code code;
    make_row_code(&code, group);
    const dsr_conv *conv = &p->conv;
    if (!ends_fit(p->tile_y * p->tile_x * p->steps * p->piece, longest_list(p, &code)))
        return DSR_TOO_LARGE;
    size_t length = p->block_rows * DSR_ROW, tiles = p->tiles_y * p->tiles_x * p->tiles_l;
    float *packed = dsr_scratch(p->out_blocks * p->blocks * length, sizeof *packed);
    if (!packed)
        return DSR_NO_MEMORY;
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(conv->out_height * conv->out_width * conv->lanes * conv->out_channels))
    {
        workspace w;
        if (!make_workspace(&w, p, &code)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(p->out_blocks * p->blocks); i++)
            pack_rows(weight, p, (size_t)i / p->blocks, (size_t)i % p->blocks, packed + (size_t)i * length);
        /* all threads have passed a barrier: they see the same status */
        if (status == DSR_OK) {
#pragma omp for schedule(dynamic)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)tiles; i++) {
                tile t = make_tile(p, (size_t)i);
                sum_tile(words, packed, p, &code, &w, &t);
                write_tile(to, p, &w, &t);
            }
        }
        free_workspace(&w);
    }
    free(packed);
    return status;
}

static int is_empty(const dsr_conv *conv) {
    return !conv->out_channels || !conv->out_height || !conv->out_width || !conv->lanes;
}

dsr_status dsr_conv2d_spikes(const uint32_t *words, const float *weight, const float *bias, double amplitude,
                             float *output, dsr_conv conv, unsigned group, int accumulate) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p = make_plan(conv, 1);
    tile_output to = {.current = output, .bias = bias, .amplitude = (float)amplitude, .accumulate = accumulate};
    return convolve(words, weight, &p, group, &to);
}

/* Rows of a dsr_row_current: bias, scale, shift, shortcut_amplitude, v_threshold, fire. */
enum { ROWS = 6 };

/* Channels of an out block, or `missing` where there is no array or no channel. */
static void pad_channels(const float *from, size_t channels, size_t out, float missing, float *to) {
    for (size_t i = 0; i < DSR_ROW; i++)
        to[i] = from && out * DSR_ROW + i < channels ? from[out * DSR_ROW + i] : missing;
}

dsr_status dsr_conv2d_neuron_spikes(const uint32_t *words, const float *weight, const float *bias, double amplitude,
                                    uint32_t *output, dsr_conv conv, size_t timesteps, unsigned group,
                                    dsr_after_conv after) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p = make_plan(conv, timesteps);
    dsr_row_current *rows = dsr_scratch(p.out_blocks, sizeof *rows);
    float *channels = dsr_scratch(p.out_blocks * ROWS * DSR_ROW, sizeof *channels);
    dsr_status status = rows && channels ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK) {
        for (size_t out = 0; out < p.out_blocks; out++) {
            float *at = channels + out * ROWS * DSR_ROW;
            pad_channels(bias, conv.out_channels, out, 0, at);
            pad_channels(after.scale, conv.out_channels, out, 1, at + DSR_ROW);
            pad_channels(after.shift, conv.out_channels, out, 0, at + 2 * DSR_ROW);
            pad_channels(after.shortcut_amplitude, conv.out_channels, out, 0, at + 3 * DSR_ROW);
            const float *own = after.thresholds.rows;
            pad_channels(own, conv.out_channels, out, 1, at + 4 * DSR_ROW);
            pad_channels(own ? own + after.thresholds.stride : NULL, conv.out_channels, out, 1, at + 5 * DSR_ROW);
            size_t existing = dsr_block_size(conv.out_channels, DSR_ROW, out);
            rows[out] = (dsr_row_current){.bias = at,
                                          .scale = at + DSR_ROW,
                                          .shift = at + 2 * DSR_ROW,
                                          .shortcut_amplitude = at + 3 * DSR_ROW,
                                          .v_threshold = own ? at + 4 * DSR_ROW : NULL,
                                          .fire = own ? at + 5 * DSR_ROW : NULL,
                                          .exists = existing == DSR_WORD ? 0xffffffffu : (1u << existing) - 1,
                                          .amplitude = (float)amplitude};
        }
        tile_output to = {.spikes = output, .rows = rows, .after = &after};
        status = convolve(words, weight, &p, group, &to);
    }
    free(rows);
    free(channels);
    return status;
}
