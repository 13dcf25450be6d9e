/* Convolution over spikes as sums of rows (kernels/rows.h), to a current or through neurons to spikes. */
#include "row_code.h"

#include <stdlib.h>

/* Blocking, measured on Zen 3 (32 KiB and 512 KiB of cache per core): squares of 4x4 output pixels with about 1,280
 * lanes in all, so that input words are expanded once for most taps; rows of 9 word-taps, 36 KiB before groups. */
enum { TILE_SIDE = 4, TILE_TARGETS = 1280, WORD_TAPS = 9 };
enum { MOST_HALO = TILE_SIDE * DSR_MOST_TAPS };

/* How a convolution is cut. A block is some words of input channels with all their taps, for DSR_ROW output channels:
 * what the first two caches hold while a tile of targets passes by. A tile is a rectangle of output pixels and `piece`
 * lanes out of each of `steps` runs of lanes: one run of all lanes, or, for neurons, the samples of every time step.
 * Its input pixels are the halo, a rectangle of `halo_y` rows and `halo_x` columns that lie anywhere. */
typedef struct {
    size_t places[MOST_HALO], count;       /* of a halo along one direction, from the tile's first output on */
    uint16_t at[TILE_SIDE][DSR_MOST_TAPS]; /* which of them an output and a tap read */
} halo_line;

typedef struct {
    dsr_conv conv;
    size_t taps, words, block_words, blocks, block_rows, out_blocks;
    size_t steps, run, piece, tile_y, tile_x, tiles_y, tiles_x, tiles_l;
    halo_line halo_y, halo_x;
    size_t group_in, group_out; /* channels of a group */
    size_t passes;              /* of sum_masked for an out block; 0: sum_rows */
} spike_conv_plan;

/* Input channels from .. to reach the output channels of a block. */
typedef struct {
    size_t from, to;
} channel_range;

static channel_range channels_of(const spike_conv_plan *p, size_t out) {
    size_t last = least(p->conv.out_channels, (out + 1) * DSR_ROW) - 1;
    return (channel_range){out * DSR_ROW / p->group_out * p->group_in, (last / p->group_out + 1) * p->group_in};
}

static size_t words_of(channel_range c) {
    return c.to == c.from ? 0 : (c.to - 1) / DSR_WORD - c.from / DSR_WORD + 1;
}

/* An output channel of few input channels (depthwise: one) is added up for DSR_ROW channels side by side: a pass adds,
 * of one word, one input channel to each of them. Rows would be zeros for the most part. */
enum { MOST_PASSES = 2, MASKED_TARGETS = 1280 };

static size_t count_passes(const spike_conv_plan *p) {
    size_t most = 0;
    for (size_t out = 0; out < p->out_blocks && p->group_in <= MOST_PASSES; out++) {
        size_t passes = words_of(channels_of(p, out)) * p->group_in;
        most = passes > most ? passes : most;
    }
    return most <= MOST_PASSES && p->conv.groups > 1 ? most : 0;
}

/* Neighbouring outputs share most of their places where the stride is small. */
static void make_halo(halo_line *h, const dsr_conv_axis *axis, size_t outputs) {
    h->count = 0;
    for (size_t i = 0; i < outputs; i++)
        for (size_t tap = 0; tap < axis->taps; tap++) {
            size_t place = i * axis->stride + tap * axis->dilation, found = 0;
            while (found < h->count && h->places[found] != place)
                found++;
            if (found == h->count)
                h->places[h->count++] = place;
            h->at[i][tap] = (uint16_t)found;
        }
}

static void make_plan(spike_conv_plan *p, dsr_conv conv, size_t steps) {
    *p = (spike_conv_plan){.conv = conv, .taps = conv.y.taps * conv.x.taps, .steps = steps, .run = conv.lanes / steps};
    p->words = dsr_blocks(conv.in_channels, DSR_WORD);
    p->block_words = least(p->words ? p->words : 1, WORD_TAPS / p->taps ? WORD_TAPS / p->taps : 1);
    p->blocks = dsr_blocks(p->words, p->block_words);
    p->block_rows = 1 + DSR_WORD * p->block_words * p->taps;
    p->out_blocks = dsr_blocks(conv.out_channels, DSR_ROW);
    p->group_in = conv.in_channels / conv.groups;
    p->group_out = conv.out_channels / conv.groups;
    p->passes = count_passes(p);
    size_t side = TILE_SIDE;
    while (side > 1 && side * side * steps > TILE_TARGETS)
        side--;
    p->tile_y = p->passes ? 1 : least(conv.y.out, side);
    p->tile_x = least(conv.x.out, p->passes ? 4 : side);
    size_t piece = (p->passes ? MASKED_TARGETS : TILE_TARGETS) / (p->tile_y * p->tile_x) / steps;
    p->piece = least(p->run, piece >= 16 ? piece / 16 * 16 : piece ? piece : 1);
    p->tiles_y = dsr_blocks(conv.y.out, p->tile_y);
    p->tiles_x = dsr_blocks(conv.x.out, p->tile_x);
    p->tiles_l = dsr_blocks(p->run, p->piece);
    make_halo(&p->halo_y, &conv.y, p->tile_y);
    make_halo(&p->halo_x, &conv.x, p->tile_x);
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

/* Words from .. to have channels that the out block needs. */
static int reaches(const spike_conv_plan *p, size_t out, size_t from, size_t to) {
    channel_range c = channels_of(p, out);
    return c.from < to * DSR_WORD && from * DSR_WORD < c.to;
}

/* The same where output channels have input channels of their own. */
static void pack_group_rows(const float *weight, const spike_conv_plan *p, size_t out_block, size_t block,
                            float *rows) {
    size_t first = block * p->block_words * DSR_WORD, end = first + p->block_words * DSR_WORD;
    if (!reaches(p, out_block, block * p->block_words, (block + 1) * p->block_words))
        return;
    memset(rows, 0, p->block_rows * DSR_ROW * sizeof *rows);
    for (size_t j = 0; j < dsr_block_size(p->conv.out_channels, DSR_ROW, out_block); j++) {
        size_t out = out_block * DSR_ROW + j, in = out / p->group_out * p->group_in;
        for (size_t c = in > first ? in : first; c < least(in + p->group_in, end); c++)
            for (size_t tap = 0; tap < p->taps; tap++)
                rows[(1 + (c - first) * p->taps + tap) * DSR_ROW + j] =
                    weight[(out * p->group_in + c - in) * p->taps + tap];
    }
}

/* Floats of a pass: a row of bits, the one of each output channel's input channel in the word, and rows of weights. */
static size_t pass_length(const spike_conv_plan *p) {
    return (1 + p->taps) * DSR_ROW;
}

static size_t pass_word(const spike_conv_plan *p, size_t out, size_t pass) {
    return channels_of(p, out).from / DSR_WORD + pass / p->group_in;
}

static void pack_pass(const float *weight, const spike_conv_plan *p, size_t out_block, size_t pass, float *rows) {
    uint32_t bits[DSR_ROW] = {0};
    memset(rows, 0, pass_length(p) * sizeof *rows);
    for (size_t j = 0; j < dsr_block_size(p->conv.out_channels, DSR_ROW, out_block); j++) {
        size_t out = out_block * DSR_ROW + j, k = pass % p->group_in, c = out / p->group_out * p->group_in + k;
        if (c / DSR_WORD != pass_word(p, out_block, pass))
            continue;
        bits[j] = 1u << c % DSR_WORD;
        for (size_t tap = 0; tap < p->taps; tap++)
            rows[(1 + tap) * DSR_ROW + j] = weight[(out * p->group_in + k) * p->taps + tap];
    }
    memcpy(rows, bits, sizeof bits);
}

/* Memory of one thread. */
typedef struct {
    uint8_t *rows, *counts; /* expanded words, [word of a block][halo pixel][lane] */
    uint16_t *lists;
    uint32_t *ends;
    dsr_row_source *sources;
    dsr_mask_source *masks;
    float *sums, *table;                      /* sums [out block][target][DSR_ROW] */
    float *weighted;                          /* [sample][DSR_ROW] */
    size_t row[MOST_HALO], column[MOST_HALO]; /* pixels of the halo; SIZE_MAX: outside the image, or between pixels */
} workspace;

/* Offsets in the list of one target at most, padding included. */
static size_t longest_list(const spike_conv_plan *p, const dsr_row_code *code) {
    return p->block_words * p->taps * (DSR_WORD / code->table_bits) + 4;
}

static int make_workspace(workspace *w, const spike_conv_plan *p, const dsr_row_code *code, int weighted) {
    size_t lanes = p->steps * p->piece, targets = p->tile_y * p->tile_x * lanes, listed = p->passes ? 0 : targets;
    size_t halo = p->passes ? 0 : p->block_words * p->halo_y.count * p->halo_x.count * lanes;
    *w = (workspace){.rows = dsr_scratch(halo + 2, 32),
                     .counts = dsr_scratch(halo, 1),
                     .lists = dsr_scratch(listed * longest_list(p, code) + 64, sizeof *w->lists),
                     .ends = dsr_scratch(listed, sizeof *w->ends),
                     .sources = dsr_scratch(p->block_words * p->taps, sizeof *w->sources),
                     .masks = dsr_scratch(p->passes * p->taps, sizeof *w->masks),
                     .sums = dsr_scratch((p->passes ? lanes : p->out_blocks * targets) * DSR_ROW, sizeof *w->sums),
                     .table = dsr_scratch((1 + p->block_words * p->taps * code->rows) * DSR_ROW, sizeof *w->table),
                     .weighted = dsr_scratch(weighted ? p->piece * DSR_ROW : 0, sizeof *w->weighted)};
    return w->rows && w->counts && w->lists && w->ends && w->sources && w->masks && w->sums && w->table && w->weighted;
}

static void free_workspace(workspace *w) {
    free(w->rows);
    free(w->counts);
    free(w->lists);
    free(w->ends);
    free(w->sources);
    free(w->masks);
    free(w->sums);
    free(w->table);
    free(w->weighted);
}

/* Output pixels of a tile, and `piece` lanes of each run from lane l0 of it on: nl lanes in all. */
typedef struct {
    size_t y0, x0, l0, ny, nx, piece, nl;
} tile;

static void find_pixels(const dsr_conv_axis *axis, const halo_line *h, size_t first, size_t *pixels) {
    for (size_t i = 0; i < h->count; i++) {
        size_t place = first * axis->stride + h->places[i] - axis->before;
        int inside = first * axis->stride + h->places[i] >= axis->before && place % axis->spread == 0;
        pixels[i] = inside && place / axis->spread < axis->size ? place / axis->spread : SIZE_MAX;
    }
}

static tile make_tile(const spike_conv_plan *p, size_t index, workspace *w) {
    tile t = {.l0 = index % p->tiles_l * p->piece,
              .x0 = index / p->tiles_l % p->tiles_x * p->tile_x,
              .y0 = index / p->tiles_l / p->tiles_x * p->tile_y};
    t.piece = least(p->piece, p->run - t.l0);
    t.nl = p->steps * t.piece;
    t.nx = least(p->tile_x, p->conv.x.out - t.x0);
    t.ny = least(p->tile_y, p->conv.y.out - t.y0);
    find_pixels(&p->conv.y, &p->halo_y, t.y0, w->row);
    find_pixels(&p->conv.x, &p->halo_x, t.x0, w->column);
    return t;
}

/* Input pixel of a halo position, or SIZE_MAX. */
static size_t input_pixel(const spike_conv_plan *p, const workspace *w, size_t halo_y, size_t halo_x) {
    size_t y = w->row[halo_y], x = w->column[halo_x];
    return y == SIZE_MAX || x == SIZE_MAX ? SIZE_MAX : y * p->conv.x.size + x;
}

/* Lists of all targets of a tile for the words from .. to. */
static void list_rows(const uint32_t *words, const spike_conv_plan *p, const tile *t, const dsr_row_code *code,
                      workspace *w, size_t from, size_t to) {
    const dsr_conv *conv = &p->conv;
    size_t pixels = conv->y.size * conv->x.size, width = p->halo_x.count, halo = p->halo_y.count * width * t->nl;
    for (size_t word = from; word < to; word++)
        for (size_t hy = 0; hy < p->halo_y.count; hy++)
            for (size_t hx = 0; hx < width; hx++) {
                size_t pixel = input_pixel(p, w, hy, hx);
                if (pixel == SIZE_MAX)
                    continue;
                size_t at = (word - from) * halo + (hy * width + hx) * t->nl;
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
                size_t hy = p->halo_y.at[i / t->nx][tap / conv->x.taps];
                size_t hx = p->halo_x.at[i % t->nx][tap % conv->x.taps];
                if (input_pixel(p, w, hy, hx) == SIZE_MAX)
                    continue;
                size_t at = (word - from) * halo + (hy * width + hx) * t->nl;
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
        size_t from = block * p->block_words, to = least(p->words, from + p->block_words);
        list_rows(words, p, t, code, w, from, to);
        for (size_t out = 0; out < p->out_blocks; out++) {
            const float *rows = packed + (out * p->blocks + block) * p->block_rows * DSR_ROW;
            if (!reaches(p, out, from, to))
                continue;
            if (code->table_bits > 1) {
                dsr_kernel->build_table(rows + DSR_ROW, p->block_words * DSR_WORD / code->table_bits, code->table_bits,
                                        p->taps, w->table);
                rows = w->table;
            }
            dsr_kernel->sum_rows(rows, w->lists, 0, w->ends, targets, w->sums + out * targets * DSR_ROW);
        }
    }
}

/* What output pixel i of a tile adds up, by passes; how many sources that are. */
static size_t find_masks(const uint32_t *words, const float *packed, const spike_conv_plan *p, workspace *w,
                         const tile *t, size_t out, size_t i) {
    const dsr_conv *conv = &p->conv;
    size_t pixels = conv->y.size * conv->x.size, count = 0;
    for (size_t tap = 0; tap < p->taps; tap++) {
        size_t pixel =
            input_pixel(p, w, p->halo_y.at[i / t->nx][tap / conv->x.taps], p->halo_x.at[i % t->nx][tap % conv->x.taps]);
        for (size_t pass = 0; pixel != SIZE_MAX && pass < p->passes; pass++) {
            const float *rows = packed + (out * p->passes + pass) * pass_length(p);
            size_t word = pass_word(p, out, pass);
            if (word < p->words)
                w->masks[count++] = (dsr_mask_source){.words = words + (word * pixels + pixel) * conv->lanes + t->l0,
                                                      .bits = rows,
                                                      .weights = rows + (1 + tap) * DSR_ROW};
        }
    }
    return count;
}

/* What becomes of the sums of a tile: a current, or spikes, or its weighted sum over time. */
typedef struct {
    float *current;
    const float *bias;
    float amplitude;
    int accumulate;
    /* or, with `rows` */
    uint32_t *spikes;            /* NULL: the sum over time */
    const dsr_row_current *rows; /* one for each out block, without its shortcut */
    const dsr_after_conv *after;
} tile_output;

/* The sums of an output pixel, the i-th of the tile, and an out block. */
static void write_sums(const tile_output *o, const spike_conv_plan *p, const workspace *w, const float *sums,
                       const tile *t, size_t out, size_t i) {
    const dsr_conv *conv = &p->conv;
    size_t pixels = conv->y.out * conv->x.out, c = out * DSR_ROW;
    size_t pixel = (t->y0 + i / t->nx) * conv->x.out + t->x0 + i % t->nx;
    if (o->rows) {
        size_t at = (out * pixels + pixel) * conv->lanes + t->l0;
        dsr_row_current row = o->rows[out];
        row.shortcut = o->after->shortcut ? o->after->shortcut + at : NULL;
        if (o->spikes)
            dsr_kernel->neuron_rows(sums, o->spikes + at, w->weighted, p->steps, t->piece, p->run, &row,
                                    &o->after->neuron);
        else
            dsr_kernel->sum_steps(sums, w->weighted, p->steps, t->piece, p->run, &row);
        if (row.weights)
            dsr_kernel->rows_to_lanes(w->weighted, t->piece, dsr_block_size(conv->out_channels, DSR_ROW, out),
                                      o->bias ? o->bias + c : NULL, 1,
                                      o->after->weighted + (c * pixels + pixel) * p->run + t->l0, pixels * p->run, 0);
    } else
        dsr_kernel->rows_to_lanes(
            sums, t->nl, dsr_block_size(conv->out_channels, DSR_ROW, out), o->bias ? o->bias + c : NULL, o->amplitude,
            o->current + (c * pixels + pixel) * conv->lanes + t->l0, pixels * conv->lanes, o->accumulate);
}

/* A tile by passes: neurons want rows, a current goes from lanes to lanes. */
static void convolve_masked(const uint32_t *words, const float *packed, const spike_conv_plan *p, workspace *w,
                            const tile *t, const tile_output *to) {
    const dsr_conv *conv = &p->conv;
    size_t pixels = conv->y.out * conv->x.out;
    for (size_t out = 0; out < p->out_blocks; out++)
        for (size_t i = 0; i < t->ny * t->nx; i++) {
            size_t count = find_masks(words, packed, p, w, t, out, i), c = out * DSR_ROW;
            size_t pixel = (t->y0 + i / t->nx) * conv->x.out + t->x0 + i % t->nx;
            if (to->rows) {
                for (size_t step = 0; step < p->steps; step++)
                    dsr_kernel->sum_masked(w->masks, count, step * p->run, t->piece,
                                           w->sums + step * t->piece * DSR_ROW);
                write_sums(to, p, w, w->sums, t, out, i);
            } else
                dsr_kernel->masked_lanes(w->masks, count, t->nl, dsr_block_size(conv->out_channels, DSR_ROW, out),
                                         to->bias ? to->bias + c : NULL, to->amplitude,
                                         to->current + (c * pixels + pixel) * conv->lanes + t->l0, pixels * conv->lanes,
                                         to->accumulate);
        }
}

static void convolve_tile(const uint32_t *words, const float *packed, const spike_conv_plan *p,
                          const dsr_row_code *code, workspace *w, const tile *t, const tile_output *to) {
    if (p->passes) {
        convolve_masked(words, packed, p, w, t, to);
        return;
    }
    sum_tile(words, packed, p, code, w, t);
    const float *sums = w->sums;
    for (size_t out = 0; out < p->out_blocks; out++)
        for (size_t i = 0; i < t->ny * t->nx; i++, sums += t->nl * DSR_ROW)
            write_sums(to, p, w, sums, t, out, i);
}

static dsr_status convolve(const uint32_t *words, const float *weight, const spike_conv_plan *p, unsigned table_bits,
                           const tile_output *to) {
    dsr_row_code code;
    make_row_code(&code, table_bits);
    const dsr_conv *conv = &p->conv;
    if (!ends_fit(p->tile_y * p->tile_x * p->steps * p->piece, longest_list(p, &code)))
        return DSR_TOO_LARGE;
    size_t length = p->passes ? pass_length(p) : p->block_rows * DSR_ROW, parts = p->passes ? p->passes : p->blocks;
    size_t tiles = p->tiles_y * p->tiles_x * p->tiles_l;
    float *packed = dsr_scratch(p->out_blocks * parts * length, sizeof *packed);
    if (!packed)
        return DSR_NO_MEMORY;
    void (*pack)(const float *, const spike_conv_plan *, size_t, size_t, float *) = p->passes          ? pack_pass
                                                                                    : conv->groups > 1 ? pack_group_rows
                                                                                                       : pack_rows;
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_threads_for(conv->y.out * conv->x.out * conv->lanes * conv->out_channels))
    {
        workspace w;
        if (!make_workspace(&w, p, &code, to->after && to->after->weights)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(p->out_blocks * parts); i++)
            pack(weight, p, (size_t)i / parts, (size_t)i % parts, packed + (size_t)i * length);
        /* all threads have passed a barrier: they see the same status */
        if (status == DSR_OK) {
#pragma omp for schedule(dynamic)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)tiles; i++) {
                tile t = make_tile(p, (size_t)i, &w);
                convolve_tile(words, packed, p, &code, &w, &t, to);
            }
        }
        free_workspace(&w);
    }
    free(packed);
    return status;
}

static int is_empty(const dsr_conv *conv) {
    return !conv->out_channels || !conv->y.out || !conv->x.out || !conv->lanes;
}

dsr_status dsr_conv2d_spikes(const uint32_t *words, const float *weight, const float *bias, double amplitude,
                             float *output, dsr_conv conv, unsigned table_bits, int accumulate) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, 1);
    tile_output to = {.current = output, .bias = bias, .amplitude = (float)amplitude, .accumulate = accumulate};
    return convolve(words, weight, &p, table_bits, &to);
}

/* Rows of a dsr_row_current: bias, scale, shift, shortcut_amplitude, v_threshold, fire. */
enum { ROWS = 6 };

/* Channels of an out block, or `missing` where there is no array or no channel. */
static void pad_channels(const float *from, size_t channels, size_t out, float missing, float *to) {
    for (size_t i = 0; i < DSR_ROW; i++)
        to[i] = from && out * DSR_ROW + i < channels ? from[out * DSR_ROW + i] : missing;
}

/* Through rows: to spikes, or without them to a sum over time, whose bias is added at the end. */
static dsr_status convolve_rows(const uint32_t *words, const float *weight, const float *bias, double amplitude,
                                uint32_t *spikes, dsr_conv conv, size_t timesteps, unsigned table_bits,
                                const dsr_after_conv *after) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, timesteps);
    dsr_row_current *rows = dsr_scratch(p.out_blocks, sizeof *rows);
    float *channels = dsr_scratch(p.out_blocks * ROWS * DSR_ROW, sizeof *channels);
    dsr_status status = rows && channels ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK) {
        for (size_t out = 0; out < p.out_blocks; out++) {
            float *at = channels + out * ROWS * DSR_ROW;
            pad_channels(spikes ? bias : NULL, conv.out_channels, out, 0, at);
            pad_channels(after->scale, conv.out_channels, out, 1, at + DSR_ROW);
            pad_channels(after->shift, conv.out_channels, out, 0, at + 2 * DSR_ROW);
            pad_channels(after->shortcut_amplitude, conv.out_channels, out, 0, at + 3 * DSR_ROW);
            const float *own = after->thresholds.rows;
            pad_channels(own, conv.out_channels, out, 1, at + 4 * DSR_ROW);
            pad_channels(own ? own + after->thresholds.stride : NULL, conv.out_channels, out, 1, at + 5 * DSR_ROW);
            size_t existing = dsr_block_size(conv.out_channels, DSR_ROW, out);
            rows[out] = (dsr_row_current){.bias = at,
                                          .scale = at + DSR_ROW,
                                          .shift = at + 2 * DSR_ROW,
                                          .shortcut_amplitude = at + 3 * DSR_ROW,
                                          .v_threshold = own ? at + 4 * DSR_ROW : NULL,
                                          .fire = own ? at + 5 * DSR_ROW : NULL,
                                          .weights = after->weights,
                                          .exists = existing == DSR_WORD ? 0xffffffffu : (1u << existing) - 1,
                                          .amplitude = (float)amplitude};
        }
        tile_output to = {.bias = spikes ? NULL : bias, .spikes = spikes, .rows = rows, .after = after};
        status = convolve(words, weight, &p, table_bits, &to);
    }
    free(rows);
    free(channels);
    return status;
}

dsr_status dsr_conv2d_neuron_spikes(const uint32_t *words, const float *weight, const float *bias, double amplitude,
                                    uint32_t *output, dsr_conv conv, size_t timesteps, unsigned table_bits,
                                    dsr_after_conv after) {
    return convolve_rows(words, weight, bias, amplitude, output, conv, timesteps, table_bits, &after);
}

dsr_status dsr_conv2d_spikes_sum(const uint32_t *words, const float *weight, const float *bias, double amplitude,
                                 dsr_conv conv, size_t timesteps, unsigned table_bits, dsr_after_conv after) {
    return convolve_rows(words, weight, bias, amplitude, NULL, conv, timesteps, table_bits, &after);
}
