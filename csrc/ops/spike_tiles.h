/* How a convolution over spikes is cut into tiles, and the lists of rows of a tile (kernels/rows.h): what those of
 * float weights and of integer weights share. */
#ifndef DSR_SPIKE_TILES_H
#define DSR_SPIKE_TILES_H

#include "row_code.h"

/* Blocking, measured on Zen 3 (32 KiB and 512 KiB of cache per core): squares of 4x4 output pixels with about 1,280
 * lanes in all, so that input words are expanded once for most taps; rows of 9 word-taps, 36 KiB before groups. Of few
 * lanes, as of one sample, squares are larger, up to 8x8, so that weights are read for fewer tiles. */
enum { TILE_SIDE = 4, MOST_SIDE = 8, TILE_TARGETS = 1280, WORD_TAPS = 9 };
enum { MOST_HALO = MOST_SIDE * DSR_MOST_TAPS };

/* How a convolution is cut. A block is some words of input channels with all their taps, for the `row` output channels
 * of a row: what the first two caches hold while a tile of targets passes by. A tile is a rectangle of output pixels
 * and `piece` lanes out of each of `steps` runs of lanes: one run of all lanes, or, for neurons, the samples of every
 * time step. Its input pixels are the halo, a rectangle of `halo_y` rows and `halo_x` columns that lie anywhere. */
typedef struct {
    size_t places[MOST_HALO], count;       /* of a halo along one direction, from the tile's first output on */
    uint16_t at[MOST_SIDE][DSR_MOST_TAPS]; /* which of them an output and a tap read */
} halo_line;

typedef struct {
    dsr_conv conv;
    size_t row, taps, words, block_words, blocks, block_rows, out_blocks;
    size_t steps, run, piece, tile_y, tile_x, tiles_y, tiles_x, tiles_l;
    halo_line halo_y, halo_x;
    size_t group_in, group_out; /* channels of a group */
    size_t passes;              /* of sum_masked for an out block; 0: sum_rows */
} spike_conv_plan;

/* Input channels from .. to reach the output channels of a block. */
typedef struct {
    size_t from, to;
} channel_range;

static inline channel_range channels_of(const spike_conv_plan *p, size_t out) {
    size_t last = least(p->conv.out_channels, (out + 1) * p->row) - 1;
    return (channel_range){out * p->row / p->group_out * p->group_in, (last / p->group_out + 1) * p->group_in};
}

static inline size_t words_of(channel_range c) {
    return c.to == c.from ? 0 : (c.to - 1) / DSR_WORD - c.from / DSR_WORD + 1;
}

/* Words from .. to have channels that the out block needs. */
static inline int reaches(const spike_conv_plan *p, size_t out, size_t from, size_t to) {
    channel_range c = channels_of(p, out);
    return c.from < to * DSR_WORD && from * DSR_WORD < c.to;
}

/* An output channel of few input channels (depthwise: one) is added up for DSR_ROW channels side by side: a pass adds,
 * of one word, one input channel to each of them. Rows would be zeros for the most part. Rows of floats only. */
enum { MOST_PASSES = 2, MASKED_TARGETS = 1280 };

static inline size_t count_passes(const spike_conv_plan *p) {
    size_t most = 0;
    if (!p->group_in || p->conv.groups == 1)
        return 0;
    for (size_t out = 0; out < p->out_blocks && p->group_in <= MOST_PASSES; out++) {
        size_t passes = words_of(channels_of(p, out)) * p->group_in;
        most = passes > most ? passes : most;
    }
    return most <= MOST_PASSES && p->row == DSR_ROW ? most : 0;
}

/* Neighbouring outputs share most of their places where the stride is small. */
static inline void make_halo(halo_line *h, const dsr_conv_axis *axis, size_t outputs) {
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

/* The blocks alone. */
static inline spike_conv_plan make_blocks(dsr_conv conv) {
    spike_conv_plan p = {.conv = conv, .taps = conv.y.taps * conv.x.taps};
    p.words = dsr_blocks(conv.in_channels, DSR_WORD);
    p.block_words = least(p.words ? p.words : 1, WORD_TAPS / p.taps ? WORD_TAPS / p.taps : 1);
    p.blocks = dsr_blocks(p.words, p.block_words);
    p.block_rows = 1 + DSR_WORD * p.block_words * p.taps;
    return p;
}

static inline void make_plan(spike_conv_plan *p, dsr_conv conv, size_t steps, size_t row) {
    *p = make_blocks(conv);
    p->row = row, p->steps = steps, p->run = conv.lanes / steps;
    p->out_blocks = dsr_blocks(conv.out_channels, row);
    p->group_in = conv.in_channels / conv.groups;
    p->group_out = conv.out_channels / conv.groups;
    p->passes = count_passes(p);
    size_t side = MOST_SIDE;
    while (side > TILE_SIDE && side * side * conv.lanes > TILE_TARGETS)
        side--;
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

static inline size_t count_tiles(const spike_conv_plan *p) {
    return p->tiles_y * p->tiles_x * p->tiles_l;
}

static inline size_t count_outputs(const spike_conv_plan *p) {
    return p->conv.y.out * p->conv.x.out * p->conv.lanes * p->conv.out_channels;
}

/* What the number of threads follows from: an output is worth the more threads the more taps of words it sums up. */
static inline size_t work_of(const spike_conv_plan *p) {
    return count_outputs(p) * (p->passes ? 1 : 1 + p->words * p->taps / 8);
}

/* Out blocks from .. to. Where there are fewer tiles than tasks are wanted, as of one sample's small images, and there
 * is much to add, a task has only some of the out blocks of a tile. Sums are the same however they are cut. */
typedef struct {
    size_t from, to;
} out_range;

enum { MUCH_TO_ADD = 1 << 20 /* taps of words, for all outputs */ };

/* The number of such tasks for each tile. */
static inline size_t count_splits(const spike_conv_plan *p, size_t tasks) {
    size_t tiles = count_tiles(p);
    int much = !p->passes && tiles < tasks && count_outputs(p) * p->words * p->taps > MUCH_TO_ADD;
    return much ? least(p->out_blocks, dsr_blocks(tasks, tiles)) : 1;
}

static inline out_range range_of(const spike_conv_plan *p, size_t split, size_t splits) {
    return (out_range){p->out_blocks * split / splits, p->out_blocks * (split + 1) / splits};
}

static inline int is_empty(const dsr_conv *conv) {
    return !conv->out_channels || !conv->y.out || !conv->x.out || !conv->lanes;
}

/* Output pixels of a tile, and `piece` lanes of each run from lane l0 of it on: nl lanes in all. */
typedef struct {
    size_t y0, x0, l0, ny, nx, piece, nl;
    size_t row[MOST_HALO], column[MOST_HALO]; /* pixels of the halo; SIZE_MAX: outside the image, or between pixels */
} tile;

/* The pixel at a place that counts the padding too; SIZE_MAX: it lies outside, or between pixels. */
static inline size_t pixel_at(const dsr_conv_axis *axis, size_t place) {
    size_t at = place - axis->before;
    int exists = place >= axis->before && at % axis->spread == 0 && at / axis->spread < axis->size;
    return exists ? at / axis->spread : SIZE_MAX;
}

static inline void find_pixels(const dsr_conv_axis *axis, const halo_line *h, size_t first, size_t *pixels) {
    for (size_t i = 0; i < h->count; i++)
        pixels[i] = pixel_at(axis, first * axis->stride + h->places[i]);
}

static inline void make_tile(const spike_conv_plan *p, size_t index, tile *t) {
    t->l0 = index % p->tiles_l * p->piece;
    t->x0 = index / p->tiles_l % p->tiles_x * p->tile_x;
    t->y0 = index / p->tiles_l / p->tiles_x * p->tile_y;
    t->piece = least(p->piece, p->run - t->l0);
    t->nl = p->steps * t->piece;
    t->nx = least(p->tile_x, p->conv.x.out - t->x0);
    t->ny = least(p->tile_y, p->conv.y.out - t->y0);
    find_pixels(&p->conv.y, &p->halo_y, t->y0, t->row);
    find_pixels(&p->conv.x, &p->halo_x, t->x0, t->column);
}

/* The i-th output pixel of a tile in the image. */
static inline size_t output_pixel(const spike_conv_plan *p, const tile *t, size_t i) {
    return (t->y0 + i / t->nx) * p->conv.x.out + t->x0 + i % t->nx;
}

/* Input pixel of a halo position, or SIZE_MAX. */
static inline size_t input_pixel(const spike_conv_plan *p, const tile *t, size_t halo_y, size_t halo_x) {
    size_t y = t->row[halo_y], x = t->column[halo_x];
    return y == SIZE_MAX || x == SIZE_MAX ? SIZE_MAX : y * p->conv.x.size + x;
}

/* What one thread needs to list the rows of a tile. */
typedef struct {
    uint8_t *rows, *counts; /* expanded words, [word of a block][halo pixel][lane] */
    uint16_t *lists;
    uint32_t *ends;
    dsr_row_source *sources;
} tile_lists;

/* Offsets in the list of one target at most, padding included. */
static inline size_t longest_list(const spike_conv_plan *p, const dsr_row_code *code) {
    return p->block_words * p->taps * (DSR_WORD / code->table_bits) + 4;
}

/* Whether the ends of the lists of a tile fit 32 bits. */
static inline int lists_fit(const spike_conv_plan *p, const dsr_row_code *code) {
    return ends_fit(p->tile_y * p->tile_x * p->steps * p->piece, longest_list(p, code));
}

static inline int make_lists(tile_lists *w, const spike_conv_plan *p, const dsr_row_code *code) {
    size_t lanes = p->steps * p->piece, listed = p->passes ? 0 : p->tile_y * p->tile_x * lanes;
    size_t halo = p->passes ? 0 : p->block_words * p->halo_y.count * p->halo_x.count * lanes;
    *w = (tile_lists){.rows = dsr_scratch(halo + 2, 32),
                      .counts = dsr_scratch(halo, 1),
                      .lists = dsr_scratch(listed * longest_list(p, code) + 64, sizeof *w->lists),
                      .ends = dsr_scratch(listed, sizeof *w->ends),
                      .sources = dsr_scratch(p->block_words * p->taps, sizeof *w->sources)};
    return w->rows && w->counts && w->lists && w->ends && w->sources;
}

static inline void free_lists(tile_lists *w) {
    dsr_release(w->rows);
    dsr_release(w->counts);
    dsr_release(w->lists);
    dsr_release(w->ends);
    dsr_release(w->sources);
}

/* Lists of all targets of a tile for the words from .. to. */
static inline void list_rows(const uint32_t *words, const spike_conv_plan *p, const tile *t, const dsr_row_code *code,
                             tile_lists *w, size_t from, size_t to) {
    const dsr_conv *conv = &p->conv;
    size_t pixels = conv->y.size * conv->x.size, width = p->halo_x.count, halo = p->halo_y.count * width * t->nl;
    for (size_t word = from; word < to; word++)
        for (size_t hy = 0; hy < p->halo_y.count; hy++)
            for (size_t hx = 0; hx < width; hx++) {
                size_t pixel = input_pixel(p, t, hy, hx);
                if (pixel == SIZE_MAX)
                    continue;
                size_t at = (word - from) * halo + (hy * width + hx) * t->nl;
                const uint32_t *lanes = words + (word * pixels + pixel) * conv->lanes + t->l0;
                /* whole runs lie one behind the other; parts of them in order: a call writes a few bytes beyond its
                 * own, which the next one overwrites */
                size_t runs = t->piece == p->run ? 1 : p->steps, n = t->nl / runs;
                for (size_t i = 0; i < runs; i++, lanes += p->run, at += n)
                    dsr_kernel->expand_words(code, lanes, n, w->rows + 32 * at, w->counts + at);
            }
    uint32_t end = 0;
    for (size_t i = 0; i < t->ny * t->nx; i++) {
        size_t count = 0;
        for (size_t word = from; word < to; word++)
            for (size_t tap = 0; tap < p->taps; tap++) {
                size_t hy = p->halo_y.at[i / t->nx][tap / conv->x.taps];
                size_t hx = p->halo_x.at[i % t->nx][tap % conv->x.taps];
                if (input_pixel(p, t, hy, hx) == SIZE_MAX)
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

#endif
