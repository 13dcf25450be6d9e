/* Convolution over spikes and its weight gradient as sums of rows (kernels/rows.h). */
#include "ops.h"

#include <stdlib.h>
#include <string.h>

/* Blocking, measured on Zen 3 (32 KiB and 512 KiB of cache a core): squares of 4x4 output pixels with about 1,280 lanes
 * in all, so that input words are expanded once for most taps; rows of 9 word-taps, 36 KiB before groups. */
enum { TILE_SIDE = 4, TILE_TARGETS = 1280, WORD_TAPS = 9 };
/* Input pixels between the outputs of a tile: a large stride makes tiles of one pixel. */
enum { MOST_HALO = 64 };
/* Weight gradient: lanes of 8 words a table; tables of a band of output rows in 2 MiB, at least 16 pixels. */
enum { GRAD_WORDS = 8, GRAD_BYTES = 2 << 20, GRAD_PIXELS = 16 };

/* An entry is the offset of a row in units of 8 bytes, so that 16 bits reach 512 KiB. */
static uint16_t entry(size_t row) {
    return (uint16_t)(row * (DSR_ROW / 2));
}

static size_t least(size_t a, size_t b) {
    return a < b ? a : b;
}

static void make_row_code(dsr_row_code *code, uint32_t group) {
    uint32_t sums = (1u << group) - 1;
    memset(code, 0, sizeof *code);
    code->group = group;
    code->rows = DSR_WORD / group * sums;
    for (uint32_t byte = 0; byte < 256; byte++)
        for (uint32_t k = 0; k < 8 / group; k++) {
            uint32_t value = byte >> k * group & sums;
            if (value)
                code->row[byte][code->count[byte]++] = (uint8_t)(k * sums + value - 1);
        }
}

/* How a forward convolution is cut. A block is some words of input channels with all their taps, for DSR_ROW output
 * channels: what the first two caches hold while a tile of targets passes by. A tile is a rectangle of output pixels
 * and some of their lanes; its input pixels are the halo. */
typedef struct {
    dsr_conv conv;
    size_t taps, words, block_words, blocks, block_rows, out_blocks;
    size_t tile_y, tile_x, tile_l, tiles_y, tiles_x, tiles_l, halo_y, halo_x;
} plan;

static plan make_plan(dsr_conv conv) {
    plan p = {.conv = conv, .taps = conv.kernel_h * conv.kernel_w};
    p.words = dsr_pieces(conv.in_channels, DSR_WORD);
    p.block_words = least(p.words ? p.words : 1, WORD_TAPS / p.taps ? WORD_TAPS / p.taps : 1);
    p.blocks = dsr_pieces(p.words, p.block_words);
    p.block_rows = 1 + DSR_WORD * p.block_words * p.taps;
    p.out_blocks = dsr_pieces(conv.out_channels, DSR_ROW);
    size_t side = TILE_SIDE;
    while (side > 1 && (side - 1) * conv.stride > MOST_HALO)
        side--;
    p.tile_y = least(conv.out_height, side);
    p.tile_x = least(conv.out_width, side);
    size_t lanes = TILE_TARGETS / (p.tile_y * p.tile_x);
    p.tile_l = least(conv.lanes, lanes / 16 * 16);
    p.tiles_y = dsr_pieces(conv.out_height, p.tile_y);
    p.tiles_x = dsr_pieces(conv.out_width, p.tile_x);
    p.tiles_l = dsr_pieces(conv.lanes, p.tile_l);
    p.halo_y = (p.tile_y - 1) * conv.stride + conv.kernel_h;
    p.halo_x = (p.tile_x - 1) * conv.stride + conv.kernel_w;
    return p;
}

/* Weights as rows, [1 + 32 block_words * taps][DSR_ROW]: first a row of zeros; missing channels are zeros too. */
static void pack_rows(const float *weight, const plan *p, size_t out_block, size_t block, float *rows) {
    size_t depth = p->conv.in_channels * p->taps, at = block * (p->block_rows - 1),
           n = least(p->block_rows - 1, depth - at);
    memset(rows, 0, DSR_ROW * sizeof *rows);
    dsr_kernel->lanes_to_rows(weight + out_block * DSR_ROW * depth + at, n,
                              dsr_piece(p->conv.out_channels, DSR_ROW, out_block), depth, rows + DSR_ROW);
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

static int make_workspace(workspace *w, const plan *p, const dsr_row_code *code) {
    size_t targets = p->tile_y * p->tile_x * p->tile_l, halo = p->block_words * p->halo_y * p->halo_x * p->tile_l;
    size_t entries = p->block_words * p->taps * (DSR_WORD / code->group) + 4;
    *w = (workspace){.rows = dsr_scratch(halo + 2, 32),
                     .counts = dsr_scratch(halo, 1),
                     .lists = dsr_scratch(targets * entries + 64, sizeof *w->lists),
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

/* The part of the input that a tile needs, and where it lies. */
typedef struct {
    size_t y0, x0, l0, ny, nx, nl;
} tile;

static tile make_tile(const plan *p, size_t index) {
    tile t = {.l0 = index % p->tiles_l * p->tile_l,
              .x0 = index / p->tiles_l % p->tiles_x * p->tile_x,
              .y0 = index / p->tiles_l / p->tiles_x * p->tile_y};
    t.nl = least(p->tile_l, p->conv.lanes - t.l0);
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
static void list_rows(const uint32_t *words, const plan *p, const tile *t, const dsr_row_code *code, workspace *w,
                      size_t from, size_t to) {
    const dsr_conv *conv = &p->conv;
    size_t pixels = conv->height * conv->width, halo = p->halo_y * p->halo_x * t->nl;
    for (size_t word = from; word < to; word++)
        for (size_t hy = 0; hy < p->halo_y; hy++)
            for (size_t hx = 0; hx < p->halo_x; hx++) {
                size_t pixel = input_pixel(conv, t, hy, hx);
                size_t at = (word - from) * halo + (hy * p->halo_x + hx) * t->nl;
                if (pixel != SIZE_MAX)
                    dsr_kernel->expand_words(code, words + (word * pixels + pixel) * conv->lanes + t->l0, t->nl,
                                             w->rows + 32 * at, w->counts + at);
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
                w->sources[count++] = (dsr_row_source){.rows = w->rows + 32 * at,
                                                       .counts = w->counts + at,
                                                       .first = entry(1 + (word - from) * p->taps * code->rows + tap)};
            }
        end = dsr_kernel->build_lists(w->sources, count, entry(p->taps), t->nl, w->lists, end, w->ends + i * t->nl);
    }
}

static void convolve_tile(const uint32_t *words, const float *packed, const float *bias, float amplitude, float *output,
                          const plan *p, const dsr_row_code *code, workspace *w, size_t index, int accumulate) {
    const dsr_conv *conv = &p->conv;
    tile t = make_tile(p, index);
    size_t targets = t.ny * t.nx * t.nl, plane = conv->out_height * conv->out_width * conv->lanes;
    memset(w->sums, 0, p->out_blocks * targets * DSR_ROW * sizeof *w->sums);
    for (size_t block = 0; block < p->blocks; block++) {
        size_t from = block * p->block_words;
        list_rows(words, p, &t, code, w, from, least(p->words, from + p->block_words));
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
    for (size_t out = 0; out < p->out_blocks; out++)
        for (size_t i = 0; i < t.ny * t.nx; i++) {
            size_t pixel = (t.y0 + i / t.nx) * conv->out_width + t.x0 + i % t.nx, c = out * DSR_ROW;
            dsr_kernel->rows_to_lanes(w->sums + (out * targets + i * t.nl) * DSR_ROW, t.nl,
                                      dsr_piece(conv->out_channels, DSR_ROW, out), bias ? bias + c : NULL, amplitude,
                                      output + c * plane + pixel * conv->lanes + t.l0, plane, accumulate);
        }
}

dsr_status dsr_conv2d_spikes(const uint32_t *words, const float *weight, const float *bias, double amplitude,
                             float *output, dsr_conv conv, unsigned group, int accumulate) {
    if (!conv.out_channels || !conv.out_height || !conv.out_width || !conv.lanes)
        return DSR_OK;
    plan p = make_plan(conv);
    dsr_row_code code;
    make_row_code(&code, group);
    size_t length = p.block_rows * DSR_ROW, tiles = p.tiles_y * p.tiles_x * p.tiles_l;
    float *packed = dsr_scratch(p.out_blocks * p.blocks * length, sizeof *packed);
    if (!packed)
        return DSR_NO_MEMORY;
    dsr_status status = DSR_OK;
#pragma omp parallel num_threads(dsr_team(conv.out_height *conv.out_width *conv.lanes *conv.out_channels))
    {
        workspace w;
        if (!make_workspace(&w, &p, &code)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(p.out_blocks * p.blocks); i++)
            pack_rows(weight, &p, (size_t)i / p.blocks, (size_t)i % p.blocks, packed + (size_t)i * length);
        /* all threads have passed a barrier: they see the same status */
        if (status == DSR_OK) {
#pragma omp for schedule(dynamic)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)tiles; i++)
                convolve_tile(words, packed, bias, (float)amplitude, output, &p, &code, &w, (size_t)i, accumulate);
        }
        free_workspace(&w);
    }
    free(packed);
    return status;
}

/* ---- weight gradient: targets are input channels, rows are lanes of one output pixel --------------------------------
 */
typedef struct {
    dsr_conv conv;
    dsr_row_code code;
    size_t batch, taps, lane_words, chunk, chunks, out_blocks, table_rows, channels, list_room, band, cells;
    /* shared by the threads: tables [pixel of the band][out block], lists and their ends [input pixel of the band] */
    float *tables, *sums; /* sums [out block][tap][channel][DSR_ROW] */
    uint16_t *lists;
    uint32_t *ends;
} gradient_plan;

static int make_gradient_plan(gradient_plan *p, dsr_conv conv, size_t batch, unsigned group) {
    *p = (gradient_plan){.conv = conv, .batch = batch, .taps = conv.kernel_h * conv.kernel_w};
    make_row_code(&p->code, group);
    p->lane_words = dsr_pieces(conv.lanes, DSR_WORD);
    p->chunks = dsr_pieces(p->lane_words, GRAD_WORDS);
    p->chunk = dsr_pieces(p->lane_words, p->chunks);
    p->out_blocks = dsr_pieces(conv.out_channels, DSR_ROW);
    p->channels = dsr_pieces(conv.in_channels, DSR_WORD) * DSR_WORD;
    p->table_rows = 1 + p->chunk * p->code.rows;
    p->list_room = p->channels * (p->chunk * (DSR_WORD / group) + 4) + 64;
    size_t row_bytes = conv.out_width * p->out_blocks * p->table_rows * DSR_ROW * sizeof(float);
    size_t rows = GRAD_BYTES / row_bytes, enough = dsr_pieces(GRAD_PIXELS, conv.out_width);
    p->band = least(conv.out_height, rows > enough ? rows : enough);
    p->cells = least(conv.height, (p->band - 1) * conv.stride + conv.kernel_h) * conv.width;
    p->tables = dsr_scratch(p->band * row_bytes, 1);
    p->sums = dsr_scratch(p->out_blocks * p->taps * p->channels * DSR_ROW, sizeof *p->sums);
    p->lists = dsr_scratch(p->cells * p->list_room, sizeof *p->lists);
    p->ends = dsr_scratch(p->cells * p->channels, sizeof *p->ends);
    return p->tables && p->sums && p->lists && p->ends;
}

/* A part of the work that all threads do together: output rows y0 .. y1 and a chunk of lane words. */
typedef struct {
    size_t y0, y1, in0, in1, word0, words;
} gradient_part;

static gradient_part make_part(const gradient_plan *p, size_t y0, size_t chunk) {
    const dsr_conv *conv = &p->conv;
    gradient_part part = {.y0 = y0, .y1 = least(conv->out_height, y0 + p->band), .word0 = chunk * p->chunk};
    part.words = least(p->chunk, p->lane_words - part.word0);
    size_t first = y0 * conv->stride, last = (part.y1 - 1) * conv->stride + conv->kernel_h;
    part.in0 = first > conv->padding ? first - conv->padding : 0;
    part.in1 = last > conv->padding ? least(last - conv->padding, conv->height) : 0;
    if (part.in1 < part.in0)
        part.in1 = part.in0;
    return part;
}

static void list_lanes(const uint32_t *transposed, const gradient_plan *p, const gradient_part *part, size_t cell,
                       uint8_t *rows, uint8_t *counts) {
    const uint32_t *words =
        transposed + ((part->in0 * p->conv.width + cell) * p->lane_words + part->word0) * p->channels;
    dsr_row_source sources[GRAD_WORDS];
    dsr_kernel->expand_words(&p->code, words, part->words * p->channels, rows, counts);
    for (size_t j = 0; j < part->words; j++)
        sources[j] = (dsr_row_source){.rows = rows + 32 * j * p->channels,
                                      .counts = counts + j * p->channels,
                                      .first = entry(1 + j * p->code.rows)};
    dsr_kernel->build_lists(sources, part->words, entry(1), p->channels, p->lists + cell * p->list_room, 0,
                            p->ends + cell * p->channels);
}

/* The gradient of one output pixel and DSR_ROW channels as a table of rows. dense [DSR_ROW][32 chunk], rows as large.
 */
static void tabulate(const dsr_gradient *gradient, const gradient_plan *p, const gradient_part *part, size_t index,
                     float *dense, float *rows) {
    const dsr_conv *conv = &p->conv;
    size_t out = index % p->out_blocks, pixel = part->y0 * conv->out_width + index / p->out_blocks;
    size_t pixels = conv->out_height * conv->out_width, channels = dsr_piece(conv->out_channels, DSR_ROW, out);
    size_t first = DSR_WORD * part->word0, room = DSR_WORD * part->words, lanes = least(room, conv->lanes - first);
    float *table = p->tables + index * p->table_rows * DSR_ROW, *to = p->code.group == 1 ? table + DSR_ROW : rows;
    for (size_t i = 0; i < channels; i++) {
        size_t c = out * DSR_ROW + i, at = c * pixels + pixel;
        dsr_kernel->gradient_lanes(gradient->constant + at * p->batch,
                                   gradient->values ? gradient->values + at * conv->lanes : NULL,
                                   gradient->values ? gradient->slope[c] : 0, p->batch, first, lanes, dense + i * room);
    }
    memset(table, 0, DSR_ROW * sizeof *table);
    dsr_kernel->lanes_to_rows(dense, lanes, channels, room, to);
    memset(to + lanes * DSR_ROW, 0, (room - lanes) * DSR_ROW * sizeof *to);
    if (p->code.group > 1)
        dsr_kernel->build_table(rows, room / p->code.group, p->code.group, 1, table);
}

/* Adds a part to the sums of DSR_ROW output channels and one tap. */
static void sum_part(const gradient_plan *p, const gradient_part *part, size_t out, size_t tap) {
    const dsr_conv *conv = &p->conv;
    float *sums = p->sums + (out * p->taps + tap) * p->channels * DSR_ROW;
    for (size_t y = part->y0; y < part->y1; y++) {
        size_t in_y = y * conv->stride + tap / conv->kernel_w - conv->padding;
        if (in_y >= conv->height)
            continue;
        for (size_t x = 0; x < conv->out_width; x++) {
            size_t in_x = x * conv->stride + tap % conv->kernel_w - conv->padding;
            if (in_x >= conv->width)
                continue;
            size_t cell = (in_y - part->in0) * conv->width + in_x;
            size_t index = ((y - part->y0) * conv->out_width + x) * p->out_blocks + out;
            dsr_kernel->sum_rows(p->tables + index * p->table_rows * DSR_ROW, p->lists + cell * p->list_room,
                                 p->ends + cell * p->channels, p->channels, sums);
        }
    }
}

static void write_gradient(const gradient_plan *p, float amplitude, size_t c, float *grad_weight) {
    for (size_t i = 0; i < p->conv.in_channels; i++)
        for (size_t tap = 0; tap < p->taps; tap++)
            grad_weight[(c * p->conv.in_channels + i) * p->taps + tap] =
                amplitude * p->sums[((c / DSR_ROW * p->taps + tap) * p->channels + i) * DSR_ROW + c % DSR_ROW];
}

dsr_status dsr_conv2d_spikes_weight_gradient(dsr_gradient gradient, const uint32_t *transposed, double amplitude,
                                             float *grad_weight, dsr_conv conv, size_t batch, unsigned group) {
    size_t weights = conv.out_channels * conv.in_channels * conv.kernel_h * conv.kernel_w;
    if (!weights || !conv.out_height || !conv.out_width || !conv.lanes) {
        memset(grad_weight, 0, weights * sizeof *grad_weight);
        return DSR_OK;
    }
    gradient_plan p;
    dsr_status status = make_gradient_plan(&p, conv, batch, group) ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK) {
        memset(p.sums, 0, p.out_blocks * p.taps * p.channels * DSR_ROW * sizeof *p.sums);
#pragma omp parallel num_threads(dsr_team(conv.out_height *conv.out_width *conv.lanes *conv.out_channels))
        {
            uint8_t *rows = dsr_scratch(p.chunk * p.channels + 2, 32), *counts = dsr_scratch(p.chunk * p.channels, 1);
            float *dense = dsr_scratch(p.chunk * DSR_WORD * DSR_ROW, sizeof *dense);
            float *singles = dsr_scratch(p.chunk * DSR_WORD * DSR_ROW, sizeof *singles);
            if (!rows || !counts || !dense || !singles) {
#pragma omp atomic write
                status = DSR_NO_MEMORY;
            }
#pragma omp barrier
            /* from here on all threads see the same status, and share the loops or none */
            for (size_t y0 = 0; y0 < conv.out_height && status == DSR_OK; y0 += p.band)
                for (size_t chunk = 0; chunk < p.chunks; chunk++) {
                    gradient_part part = make_part(&p, y0, chunk);
#pragma omp for schedule(dynamic) nowait
                    for (ptrdiff_t cell = 0; cell < (ptrdiff_t)((part.in1 - part.in0) * conv.width); cell++)
                        list_lanes(transposed, &p, &part, (size_t)cell, rows, counts);
#pragma omp for schedule(static)
                    for (ptrdiff_t i = 0; i < (ptrdiff_t)((part.y1 - y0) * conv.out_width * p.out_blocks); i++)
                        tabulate(&gradient, &p, &part, (size_t)i, dense, singles);
#pragma omp for schedule(dynamic)
                    for (ptrdiff_t unit = 0; unit < (ptrdiff_t)(p.out_blocks * p.taps); unit++)
                        sum_part(&p, &part, (size_t)unit / p.taps, (size_t)unit % p.taps);
                }
#pragma omp for schedule(static)
            for (ptrdiff_t c = 0; c < (ptrdiff_t)conv.out_channels; c++)
                write_gradient(&p, (float)amplitude, (size_t)c, grad_weight);
            free(rows);
            free(counts);
            free(dense);
            free(singles);
        }
    }
    free(p.tables);
    free(p.sums);
    free(p.lists);
    free(p.ends);
    return status;
}
