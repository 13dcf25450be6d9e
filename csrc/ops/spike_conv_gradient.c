/* Weight gradient of a convolution over spikes as sums of rows (kernels/rows.h): targets are input channels, rows are
 * lanes of one output pixel. */
#include "depthwise.h"
#include "row_code.h"

/* Lanes of 8 words per table; tables of a band of output rows in 2 MiB, at least 16 pixels. Measured on Zen 3. */
enum { GRAD_WORDS = 8, GRAD_BYTES = 2 << 20, GRAD_PIXELS = 16 };

typedef struct {
    dsr_conv conv;
    gather_axis y, x;
    dsr_row_code code;
    const uint32_t *transposed;
    size_t batch, taps, lane_words, chunk, chunks, out_blocks, table_rows, channels, list_room, sum_room, band, cells;
    /* shared by the threads: tables [out block][pixel of the band], lists and their ends [input pixel of the band] */
    float *tables, *sums; /* sums [out block][tap][channel][DSR_ROW] */
    uint16_t *lists;
    uint32_t *ends;
} gradient_plan;

static dsr_status make_gradient_plan(gradient_plan *p, const uint32_t *transposed, dsr_conv conv, size_t batch,
                                     unsigned table_bits) {
    *p = (gradient_plan){.conv = conv, .batch = batch, .taps = conv.y.taps * conv.x.taps};
    p->transposed = transposed;
    p->y = forward_axis(&conv.y);
    p->x = forward_axis(&conv.x);
    p->code = *dsr_row_code_of(table_bits);
    p->lane_words = dsr_blocks(conv.lanes, DSR_WORD);
    p->chunks = dsr_blocks(p->lane_words, GRAD_WORDS);
    p->chunk = dsr_blocks(p->lane_words, p->chunks);
    p->out_blocks = dsr_blocks(conv.out_channels, DSR_ROW);
    p->channels = dsr_blocks(conv.in_channels, DSR_WORD) * DSR_WORD;
    p->table_rows = 1 + p->chunk * p->code.rows;
    size_t longest = p->chunk * (DSR_WORD / table_bits) + 4;
    if (!ends_fit(p->channels, longest))
        return DSR_TOO_LARGE;
    p->list_room = p->channels * longest + 64;
    size_t row_bytes = conv.x.out * p->out_blocks * p->table_rows * DSR_ROW * sizeof(float);
    size_t rows = GRAD_BYTES / row_bytes, enough = dsr_blocks(GRAD_PIXELS, conv.x.out);
    p->band = least(conv.y.out, rows > enough ? rows : enough);
    p->cells =
        least(conv.y.size, (p->band - 1) * conv.y.stride + (conv.y.taps - 1) * conv.y.dilation + 1) * conv.x.size;
    p->tables = dsr_scratch(p->band * row_bytes, 1);
    p->sum_room = p->out_blocks * p->taps * p->channels * DSR_ROW;
    p->sums = dsr_scratch(p->sum_room, sizeof *p->sums);
    p->lists = dsr_scratch(p->cells * p->list_room, sizeof *p->lists);
    p->ends = dsr_scratch(p->cells * p->channels, sizeof *p->ends);
    return p->tables && p->sums && p->lists && p->ends ? DSR_OK : DSR_NO_MEMORY;
}

/* A part of the work that all threads do together: output rows y0 .. y1 and a chunk of lane words. */
typedef struct {
    size_t y0, y1, in0, in1, word0, words;
} gradient_part;

/* Pixels of one direction that lie before a place of the line. */
static size_t pixels_before(const dsr_conv_axis *axis, size_t place) {
    return place > axis->before ? least(dsr_blocks(place - axis->before, axis->spread), axis->size) : 0;
}

static gradient_part make_part(const gradient_plan *p, size_t y0, size_t chunk) {
    const dsr_conv_axis *y = &p->conv.y;
    gradient_part part = {.y0 = y0, .y1 = least(y->out, y0 + p->band), .word0 = chunk * p->chunk};
    part.words = least(p->chunk, p->lane_words - part.word0);
    part.in0 = pixels_before(y, y0 * y->stride);
    part.in1 = pixels_before(y, (part.y1 - 1) * y->stride + (y->taps - 1) * y->dilation + 1);
    return part;
}

/* The words of a pixel. */
static const uint32_t *words_of_cell(const gradient_plan *p, const gradient_part *part, size_t cell) {
    return p->transposed + ((part->in0 * p->conv.x.size + cell) * p->lane_words + part->word0) * p->channels;
}

static void list_lanes(const gradient_plan *p, const gradient_part *part, size_t cell, uint8_t *rows, uint8_t *counts) {
    const uint32_t *words = words_of_cell(p, part, cell);
    dsr_row_source sources[GRAD_WORDS];
    dsr_kernel->expand_words(&p->code, words, part->words * p->channels, rows, counts);
    for (size_t j = 0; j < part->words; j++)
        sources[j] = (dsr_row_source){.rows = rows + 32 * j * p->channels,
                                      .counts = counts + j * p->channels,
                                      .first = row_offset(1 + j * p->code.rows)};
    dsr_kernel->build_lists(sources, part->words, row_offset(1), p->channels, p->lists + cell * p->list_room, 0,
                            p->ends + cell * p->channels);
}

/* Pixels of the band of a part. */
static size_t band_pixels(const gradient_plan *p, const gradient_part *part) {
    return (part->y1 - part->y0) * p->conv.x.out;
}

/* The gradient of one output pixel and DSR_ROW channels as a table of rows. dense [DSR_ROW][32 chunk], rows as large.
 */
static void tabulate(const dsr_gradient *gradient, const gradient_plan *p, const gradient_part *part, size_t index,
                     float *dense, float *rows) {
    const dsr_conv *conv = &p->conv;
    size_t out = index / band_pixels(p, part), pixel = part->y0 * conv->x.out + index % band_pixels(p, part);
    size_t pixels = conv->y.out * conv->x.out, channels = dsr_block_size(conv->out_channels, DSR_ROW, out);
    size_t first = DSR_WORD * part->word0, room = DSR_WORD * part->words, lanes = least(room, conv->lanes - first);
    float *table = p->tables + index * p->table_rows * DSR_ROW, *to = p->code.table_bits == 1 ? table + DSR_ROW : rows;
    for (size_t i = 0; i < channels; i++) {
        size_t c = out * DSR_ROW + i, at = c * pixels + pixel;
        dsr_kernel->gradient_lanes(gradient->constant + at * p->batch, gradient->weights,
                                   gradient->values ? gradient->values + at * conv->lanes : NULL,
                                   gradient->values ? gradient->slope[c] : 0, p->batch, first, lanes, dense + i * room);
    }
    memset(table, 0, DSR_ROW * sizeof *table);
    dsr_kernel->lanes_to_rows(dense, lanes, channels, room, to);
    memset(to + lanes * DSR_ROW, 0, (room - lanes) * DSR_ROW * sizeof *to);
    if (p->code.table_bits > 1)
        dsr_kernel->build_table(rows, room / p->code.table_bits, p->code.table_bits, 1, table);
}

/* Input channels of a block of output channels, in whole words. */
static size_t first_channel(const gradient_plan *p, size_t out) {
    const dsr_conv *conv = &p->conv;
    size_t group = out * DSR_ROW / (conv->out_channels / conv->groups);
    return group * (conv->in_channels / conv->groups) / DSR_WORD * DSR_WORD;
}

static size_t end_channel(const gradient_plan *p, size_t out) {
    const dsr_conv *conv = &p->conv;
    size_t last = least(conv->out_channels, (out + 1) * DSR_ROW) - 1,
           group = last / (conv->out_channels / conv->groups);
    return dsr_blocks((group + 1) * (conv->in_channels / conv->groups), DSR_WORD) * DSR_WORD;
}

/* Adds a part to the sums of DSR_ROW output channels and one tap. */
static void sum_part(const gradient_plan *p, const gradient_part *part, size_t out, size_t tap) {
    const dsr_conv *conv = &p->conv;
    size_t from = first_channel(p, out), channels = end_channel(p, out) - from;
    float *sums = p->sums + ((out * p->taps + tap) * p->channels + from) * DSR_ROW;
    const float *tables = p->tables + out * band_pixels(p, part) * p->table_rows * DSR_ROW;
    for (size_t y = part->y0; y < part->y1; y++) {
        size_t in_y = gather_pixel(&p->y, y, tap / conv->x.taps);
        if (in_y == SIZE_MAX)
            continue;
        for (size_t x = 0; x < conv->x.out; x++) {
            size_t in_x = gather_pixel(&p->x, x, tap % conv->x.taps);
            if (in_x == SIZE_MAX)
                continue;
            size_t cell = (in_y - part->in0) * conv->x.size + in_x;
            const float *table = tables + ((y - part->y0) * conv->x.out + x) * p->table_rows * DSR_ROW;
            const uint32_t *ends = p->ends + cell * p->channels + from;
            dsr_kernel->sum_rows(table, p->lists + cell * p->list_room, from ? ends[-1] : 0, ends, channels, sums);
        }
    }
}

static void write_gradient(const gradient_plan *p, float amplitude, size_t c, float *grad_weight) {
    size_t channels = p->conv.in_channels / p->conv.groups,
           first = c / (p->conv.out_channels / p->conv.groups) * channels;
    for (size_t i = 0; i < channels; i++)
        for (size_t tap = 0; tap < p->taps; tap++)
            grad_weight[(c * channels + i) * p->taps + tap] =
                amplitude * p->sums[((c / DSR_ROW * p->taps + tap) * p->channels + first + i) * DSR_ROW + c % DSR_ROW];
}

dsr_status dsr_conv2d_spikes_weight_gradient(dsr_gradient gradient, const uint32_t *transposed, double amplitude,
                                             float *grad_weight, dsr_conv conv, size_t batch, unsigned table_bits) {
    size_t weights = conv.out_channels * (conv.in_channels / conv.groups) * conv.y.taps * conv.x.taps;
    if (!weights || !conv.y.out || !conv.x.out || !conv.lanes) {
        memset(grad_weight, 0, weights * sizeof *grad_weight);
        return DSR_OK;
    }
    if (dsr_is_depthwise(&conv))
        return dsr_depthwise_spikes_weight_gradient(&gradient, transposed, (float)amplitude, grad_weight, &conv, batch);
    gradient_plan p;
    dsr_status status = make_gradient_plan(&p, transposed, conv, batch, table_bits);
    if (status == DSR_OK) {
        memset(p.sums, 0, p.sum_room * sizeof *p.sums);
#pragma omp parallel num_threads(dsr_threads_for(conv.y.out *conv.x.out *conv.lanes *conv.out_channels))
        {
            uint8_t *rows = dsr_scratch(p.chunk * p.channels + 2, 32), *counts = dsr_scratch(p.chunk * p.channels, 1);
            float *dense = dsr_scratch(p.chunk * DSR_WORD * DSR_ROW, sizeof *dense);
            float *singles = dsr_scratch(p.chunk * DSR_WORD * DSR_ROW, sizeof *singles);
            if (!rows || !counts || !dense || !singles) {
#pragma omp atomic write
                status = DSR_NO_MEMORY;
            }
#pragma omp barrier
            /* from here on all threads see the same status, and share the loops or none; a thread sums up tables that
             * it made, which are in its cache (with dynamic loops two threads were 1.3 to 1.7 times as fast as one, and
             * are 1.8 to 1.9 times; Intel Xeon, batch 500) */
            for (size_t y0 = 0; y0 < conv.y.out && status == DSR_OK; y0 += p.band)
                for (size_t chunk = 0; chunk < p.chunks; chunk++) {
                    gradient_part part = make_part(&p, y0, chunk);
#pragma omp for schedule(dynamic) nowait
                    for (ptrdiff_t cell = 0; cell < (ptrdiff_t)((part.in1 - part.in0) * conv.x.size); cell++)
                        list_lanes(&p, &part, (size_t)cell, rows, counts);
#pragma omp for schedule(static)
                    for (ptrdiff_t i = 0; i < (ptrdiff_t)(band_pixels(&p, &part) * p.out_blocks); i++)
                        tabulate(&gradient, &p, &part, (size_t)i, dense, singles);
#pragma omp for schedule(static)
                    for (ptrdiff_t unit = 0; unit < (ptrdiff_t)(p.out_blocks * p.taps); unit++)
                        sum_part(&p, &part, (size_t)unit / p.taps, (size_t)unit % p.taps);
                }
#pragma omp for schedule(static)
            for (ptrdiff_t c = 0; c < (ptrdiff_t)conv.out_channels; c++)
                write_gradient(&p, (float)amplitude, (size_t)c, grad_weight);
            dsr_release(rows);
            dsr_release(counts);
            dsr_release(dense);
            dsr_release(singles);
        }
    }
    dsr_release(p.tables);
    dsr_release(p.sums);
    dsr_release(p.lists);
    dsr_release(p.ends);
    return status;
}
