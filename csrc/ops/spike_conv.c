/* Convolution over spikes as sums of rows (kernels/rows.h), to a current or through neurons to spikes. */
#include "spike_tiles.h"

/* Weights as rows, [1 + 32 block_words * taps][DSR_ROW]: first a row of zeros; missing channels are zeros too. */
static void pack_rows(const float *weight, const spike_conv_plan *p, size_t out_block, size_t block, float *rows) {
    size_t depth = p->conv.in_channels * p->taps, at = block * (p->block_rows - 1),
           n = least(p->block_rows - 1, depth - at);
    memset(rows, 0, DSR_ROW * sizeof *rows);
    dsr_kernel->lanes_to_rows(weight + out_block * DSR_ROW * depth + at, n,
                              dsr_block_size(p->conv.out_channels, DSR_ROW, out_block), depth, rows + DSR_ROW);
    memset(rows + (1 + n) * DSR_ROW, 0, (p->block_rows - 1 - n) * DSR_ROW * sizeof *rows);
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

/* Lists of all blocks of rows of all tiles. */
typedef struct {
    uint16_t *lists;
    uint32_t *ends;
    size_t length, targets; /* of a block: offsets, ends */
} shared_lists;

static int make_shared(shared_lists *s, const spike_conv_plan *p, const dsr_row_code *code, size_t tiles) {
    s->targets = p->tile_y * p->tile_x * p->steps * p->piece;
    s->length = s->targets * longest_list(p, code) + 64;
    s->lists = dsr_scratch(tiles * p->blocks * s->length, sizeof *s->lists);
    s->ends = dsr_scratch(tiles * p->blocks * s->targets, sizeof *s->ends);
    return s->lists && s->ends;
}

/* The lists of a block of tile `index`, with the memory of a thread, `own`, for making them. */
static tile_lists shared_of(const shared_lists *s, const spike_conv_plan *p, size_t index, size_t block,
                            const tile_lists *own) {
    tile_lists at = *own;
    at.lists = s->lists + (index * p->blocks + block) * s->length;
    at.ends = s->ends + (index * p->blocks + block) * s->targets;
    return at;
}

/* Memory of one thread. */
typedef struct {
    tile_lists lists;
    dsr_mask_source *masks;
    float *sums, *table;        /* sums [out block][target][DSR_ROW] */
    float *weighted;            /* [sample][DSR_ROW] */
    const shared_lists *shared; /* NULL: a tile's rows are listed where they are added */
    size_t tile;                /* the number of the present one */
} workspace;

static int make_workspace(workspace *w, const spike_conv_plan *p, const dsr_row_code *code, int weighted) {
    size_t lanes = p->steps * p->piece, targets = p->tile_y * p->tile_x * lanes;
    int listed = make_lists(&w->lists, p, code);
    w->masks = dsr_scratch(p->passes * p->taps, sizeof *w->masks);
    w->sums = dsr_scratch((p->passes ? lanes : p->out_blocks * targets) * DSR_ROW, sizeof *w->sums);
    w->table = dsr_scratch((1 + p->block_words * p->taps * code->rows) * DSR_ROW, sizeof *w->table);
    w->weighted = dsr_scratch(weighted ? p->piece * DSR_ROW : 0, sizeof *w->weighted);
    return listed && w->masks && w->sums && w->table && w->weighted;
}

static void free_workspace(workspace *w) {
    free_lists(&w->lists);
    dsr_release(w->masks);
    dsr_release(w->sums);
    dsr_release(w->table);
    dsr_release(w->weighted);
}

static const float *rows_of(const float *packed, const spike_conv_plan *p, size_t out, size_t block) {
    return packed + (out * p->blocks + block) * p->block_rows * DSR_ROW;
}

/* The rows that are wanted after these, NULL behind the last: the next out block that reads the same words, or the
 * first one of the next words. */
static const float *rows_after(const float *packed, const spike_conv_plan *p, size_t out, size_t block,
                               out_range outs) {
    if (out + 1 < outs.to)
        return rows_of(packed, p, out + 1, block);
    return block + 1 < p->blocks ? rows_of(packed, p, outs.from, block + 1) : NULL;
}

/* sum_rows of all targets. Weights of a large network come from beyond the second cache: in between, the next ones are
 * asked for, which pays most where few lanes share them (measured on AVX-512, one sample: 5 to 10 % of a pass). */
static void sum_and_fetch(const float *rows, const tile_lists *lists, size_t targets, float *sums, const float *next,
                          size_t floats) {
    enum { TARGETS = 16, LINE = 16 };
    size_t line = 0;
    for (size_t i = 0; i < targets; i += TARGETS) {
        size_t n = least(TARGETS, targets - i);
        for (size_t end = next ? floats / LINE * (i + n) / targets : 0; line < end; line++)
            __builtin_prefetch(next + line * LINE, 0, 2);
        dsr_kernel->sum_rows(rows, lists->lists, i ? lists->ends[i - 1] : 0, lists->ends + i, n, sums + i * DSR_ROW);
    }
}

/* Sums of the rows that the spikes of a tile select, in w->sums. */
static void sum_tile(const uint32_t *words, const float *packed, const spike_conv_plan *p, const dsr_row_code *code,
                     workspace *w, const tile *t, out_range outs) {
    size_t targets = t->ny * t->nx * t->nl;
    tile_lists lists = w->lists;
    memset(w->sums, 0, (outs.to - outs.from) * targets * DSR_ROW * sizeof *w->sums);
    for (size_t block = 0; block < p->blocks; block++) {
        size_t from = block * p->block_words, to = least(p->words, from + p->block_words);
        if (w->shared)
            lists = shared_of(w->shared, p, w->tile, block, &w->lists);
        else
            list_rows(words, p, t, code, &lists, from, to);
        for (size_t out = outs.from; out < outs.to; out++) {
            const float *rows = rows_of(packed, p, out, block);
            if (!reaches(p, out, from, to))
                continue;
            if (code->table_bits > 1) {
                dsr_kernel->build_table(rows + DSR_ROW, p->block_words * DSR_WORD / code->table_bits, code->table_bits,
                                        p->taps, w->table);
                rows = w->table;
            }
            sum_and_fetch(rows, &lists, targets, w->sums + (out - outs.from) * targets * DSR_ROW,
                          rows_after(packed, p, out, block, outs), p->block_rows * DSR_ROW);
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
            input_pixel(p, t, p->halo_y.at[i / t->nx][tap / conv->x.taps], p->halo_x.at[i % t->nx][tap % conv->x.taps]);
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
    size_t pixel = output_pixel(p, t, i);
    if (o->rows) {
        size_t at = (out * pixels + pixel) * conv->lanes + t->l0, sample = pixel * p->run + t->l0;
        dsr_row_current row = o->rows[out];
        row.shortcut = o->after->shortcut ? o->after->shortcut + at : NULL;
        if (o->after->potentials)
            row.potentials = o->after->potentials + (out * pixels * p->run + sample) * DSR_ROW;
        if (o->spikes)
            dsr_kernel->neuron_rows(sums, o->spikes + at, w->weighted, p->steps, t->piece, p->run, &row,
                                    &o->after->neuron);
        else
            dsr_kernel->sum_steps(sums, w->weighted, p->steps, t->piece, p->run, &row);
        if (row.weights)
            dsr_kernel->rows_to_lanes(w->weighted, t->piece, dsr_block_size(conv->out_channels, DSR_ROW, out),
                                      o->bias ? o->bias + c : NULL, 1,
                                      o->after->weighted + c * pixels * p->run + sample, pixels * p->run, 0);
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
            size_t pixel = output_pixel(p, t, i);
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
                          const dsr_row_code *code, workspace *w, const tile *t, out_range outs,
                          const tile_output *to) {
    if (p->passes) {
        convolve_masked(words, packed, p, w, t, to);
        return;
    }
    sum_tile(words, packed, p, code, w, t, outs);
    const float *sums = w->sums;
    for (size_t out = outs.from; out < outs.to; out++)
        for (size_t i = 0; i < t->ny * t->nx; i++, sums += t->nl * DSR_ROW)
            write_sums(to, p, w, sums, t, out, i);
}

/* Packed weights: the parts of an out block one behind the other, which are its passes or its blocks of rows. */
static size_t count_parts(const spike_conv_plan *p) {
    return p->passes ? p->passes : p->blocks;
}

static size_t part_length(const spike_conv_plan *p) {
    return p->passes ? pass_length(p) : p->block_rows * DSR_ROW;
}

static void pack_part(const float *weight, const spike_conv_plan *p, size_t index, float *packed) {
    size_t parts = count_parts(p), out = index / parts, part = index % parts;
    packed += index * part_length(p);
    if (p->passes)
        pack_pass(weight, p, out, part, packed);
    else if (p->conv.groups > 1)
        pack_group_rows(weight, p, out, part, packed);
    else
        pack_rows(weight, p, out, part, packed);
}

size_t dsr_packed_length(dsr_conv conv) {
    spike_conv_plan p;
    make_plan(&p, conv, 1, DSR_ROW);
    return p.out_blocks * count_parts(&p) * part_length(&p);
}

void dsr_pack_weights(const float *weight, float *packed, dsr_conv conv) {
    spike_conv_plan p;
    make_plan(&p, conv, 1, DSR_ROW);
    memset(packed, 0, dsr_packed_length(conv) * sizeof *packed); /* rows that no output channel reads are not written */
    for (size_t i = 0; i < p.out_blocks * count_parts(&p); i++)
        pack_part(weight, &p, i, packed);
}

enum { LEAST_TASKS = 4 };

static dsr_status convolve(const uint32_t *words, dsr_weights weights, const spike_conv_plan *p, unsigned table_bits,
                           const tile_output *to) {
    const dsr_row_code *code = dsr_row_code_of(table_bits);
    if (!p->passes && !lists_fit(p, code))
        return DSR_TOO_LARGE;
    size_t parts = p->out_blocks * count_parts(p), tiles = count_tiles(p);
    float *own = weights.packed ? NULL : dsr_scratch(parts * part_length(p), sizeof *own);
    const float *packed = own ? own : weights.packed;
    if (!packed)
        return DSR_NO_MEMORY;
    dsr_status status = DSR_OK;
    /* where tasks share a tile, its rows are listed before, once for all of them */
    size_t splits = count_splits(p, LEAST_TASKS);
    shared_lists shared = {0};
    if (splits > 1 && !make_shared(&shared, p, code, tiles))
        status = DSR_NO_MEMORY;
#pragma omp parallel num_threads(dsr_threads_for(work_of(p)))
    {
        workspace w;
        if (!make_workspace(&w, p, code, to->after && to->after->weights)) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(own ? parts : 0); i++)
            pack_part(weights.plain, p, (size_t)i, own);
        /* all threads have passed a barrier: they see the same status */
        if (status == DSR_OK) {
            w.shared = splits > 1 ? &shared : NULL;
#pragma omp for schedule(dynamic)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)(splits > 1 ? tiles * p->blocks : 0); i++) {
                size_t block = (size_t)i % p->blocks, from = block * p->block_words;
                tile_lists lists = shared_of(&shared, p, (size_t)i / p->blocks, block, &w.lists);
                tile t;
                make_tile(p, (size_t)i / p->blocks, &t);
                list_rows(words, p, &t, code, &lists, from, least(p->words, from + p->block_words));
            }
#pragma omp for schedule(dynamic)
            for (ptrdiff_t i = 0; i < (ptrdiff_t)(tiles * splits); i++) {
                tile t;
                w.tile = (size_t)i / splits;
                make_tile(p, w.tile, &t);
                convolve_tile(words, packed, p, code, &w, &t, range_of(p, (size_t)i % splits, splits), to);
            }
        }
        free_workspace(&w);
    }
    dsr_release(shared.lists);
    dsr_release(shared.ends);
    dsr_release(own);
    return status;
}

dsr_status dsr_conv2d_spikes(const uint32_t *words, dsr_weights weights, const float *bias, double amplitude,
                             float *output, dsr_conv conv, unsigned table_bits, int accumulate) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, 1, DSR_ROW);
    tile_output to = {.current = output, .bias = bias, .amplitude = (float)amplitude, .accumulate = accumulate};
    return convolve(words, weights, &p, table_bits, &to);
}

/* Rows of a dsr_row_current: bias, scale, shift, shortcut_amplitude, v_threshold, fire. */
enum { ROWS = 6 };

/* Channels of a block, or `missing` where there is no array or no channel. */
static void pad_channels(const float *from, size_t channels, size_t block, float missing, float *to) {
    for (size_t i = 0; i < DSR_ROW; i++)
        to[i] = from && block * DSR_ROW + i < channels ? from[block * DSR_ROW + i] : missing;
}

/* The current of the neurons of each block of DSR_ROW channels; `padded` has room for ROWS rows of each, and a block
 * has `words` of the output in each plane. */
static void make_row_currents(dsr_row_current *rows, float *padded, size_t channels, size_t words, const float *bias,
                              float amplitude, const dsr_after_conv *after) {
    const float *own = after->thresholds.rows;
    for (size_t block = 0; block < dsr_blocks(channels, DSR_ROW); block++, padded += ROWS * DSR_ROW) {
        pad_channels(bias, channels, block, 0, padded);
        pad_channels(after->scale, channels, block, 1, padded + DSR_ROW);
        pad_channels(after->shift, channels, block, 0, padded + 2 * DSR_ROW);
        pad_channels(after->shortcut_amplitude, channels, block, 0, padded + 3 * DSR_ROW);
        pad_channels(own, channels, block, 1, padded + 4 * DSR_ROW);
        pad_channels(own ? own + after->thresholds.stride : NULL, channels, block, 1, padded + 5 * DSR_ROW);
        size_t existing = dsr_block_size(channels, DSR_ROW, block);
        rows[block] = (dsr_row_current){.bias = padded,
                                        .scale = padded + DSR_ROW,
                                        .shift = padded + 2 * DSR_ROW,
                                        .shortcut_amplitude = padded + 3 * DSR_ROW,
                                        .v_threshold = own ? padded + 4 * DSR_ROW : NULL,
                                        .fire = own ? padded + 5 * DSR_ROW : NULL,
                                        .plane = dsr_blocks(channels, DSR_ROW) * words,
                                        .weights = after->weights,
                                        .exists = existing == DSR_WORD ? 0xffffffffu : (1u << existing) - 1,
                                        .amplitude = amplitude};
    }
}

/* Through rows: to spikes, or without them to a sum over time, whose bias is added at the end. */
static dsr_status convolve_rows(const uint32_t *words, dsr_weights weights, const float *bias, double amplitude,
                                uint32_t *spikes, dsr_conv conv, size_t timesteps, unsigned table_bits,
                                const dsr_after_conv *after) {
    if (is_empty(&conv))
        return DSR_OK;
    spike_conv_plan p;
    make_plan(&p, conv, timesteps, DSR_ROW);
    dsr_row_current *rows = dsr_scratch(p.out_blocks, sizeof *rows);
    float *padded = dsr_scratch(p.out_blocks * ROWS * DSR_ROW, sizeof *padded);
    dsr_status status = rows && padded ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK) {
        make_row_currents(rows, padded, conv.out_channels, conv.y.out * conv.x.out * conv.lanes, spikes ? bias : NULL,
                          (float)amplitude, after);
        tile_output to = {.bias = spikes ? NULL : bias, .spikes = spikes, .rows = rows, .after = after};
        status = convolve(words, weights, &p, table_bits, &to);
    }
    dsr_release(rows);
    dsr_release(padded);
    return status;
}

dsr_status dsr_conv2d_neuron_spikes(const uint32_t *words, dsr_weights weights, const float *bias, double amplitude,
                                    uint32_t *output, dsr_conv conv, size_t timesteps, unsigned table_bits,
                                    dsr_after_conv after) {
    return convolve_rows(words, weights, bias, amplitude, output, conv, timesteps, table_bits, &after);
}

dsr_status dsr_conv2d_spikes_sum(const uint32_t *words, dsr_weights weights, const float *bias, double amplitude,
                                 dsr_conv conv, size_t timesteps, unsigned table_bits, dsr_after_conv after) {
    return convolve_rows(words, weights, bias, amplitude, NULL, conv, timesteps, table_bits, &after);
}

/* Some pixels of a block of channels at a time: their lanes are turned to rows, whose neurons then fire side by side.
 * Of few lanes, more pixels: they lie one behind the other. */
enum { TURNED_LANES = 64 };

dsr_status dsr_neuron_steps(dsr_layer_current input, uint32_t *words, float *potentials, dsr_lanes shape,
                            dsr_neuron neuron, dsr_thresholds thresholds) {
    size_t blocks = dsr_blocks(shape.channels, DSR_ROW), lanes = shape.timesteps * shape.batch;
    size_t given = input.one_step ? shape.batch : lanes;
    size_t few = given && given < TURNED_LANES ? TURNED_LANES / given : 1, parts = dsr_blocks(shape.pixels, few);
    if (!blocks || !shape.pixels || !lanes)
        return DSR_OK;
    dsr_after_conv after = {.scale = input.scale, .shift = input.shift, .neuron = neuron, .thresholds = thresholds};
    dsr_row_current *currents = dsr_scratch(blocks, sizeof *currents);
    float *padded = dsr_scratch(blocks * ROWS * DSR_ROW, sizeof *padded);
    dsr_status status = currents && padded ? DSR_OK : DSR_NO_MEMORY;
    if (status == DSR_OK)
        make_row_currents(currents, padded, shape.channels, shape.pixels * lanes, NULL, 1, &after);
#pragma omp parallel num_threads(dsr_threads_for(shape.channels *shape.pixels *lanes)) if (status == DSR_OK)
    {
        float *rows = dsr_scratch(few * given * DSR_ROW, sizeof *rows);
        if (!rows) {
#pragma omp atomic write
            status = DSR_NO_MEMORY;
        }
#pragma omp barrier
        /* all threads see the same status: potentials are changed everywhere or nowhere */
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < (ptrdiff_t)(status == DSR_OK ? blocks * parts : 0); i++) {
            size_t block = (size_t)i / parts, first = (size_t)i % parts * few;
            size_t n = least(few, shape.pixels - first), at = block * shape.pixels + first;
            dsr_row_current current = currents[block];
            current.one_step = input.one_step;
            dsr_kernel->lanes_to_rows(input.current + (block * DSR_ROW * shape.pixels + first) * given, n * given,
                                      dsr_block_size(shape.channels, DSR_ROW, block), shape.pixels * given, rows);
            for (size_t j = 0; j < n; j++) {
                current.potentials = potentials ? potentials + (at + j) * shape.batch * DSR_ROW : NULL;
                dsr_kernel->neuron_rows(rows + j * given * DSR_ROW, words + (at + j) * lanes, NULL, shape.timesteps,
                                        shape.batch, shape.batch, &current, &neuron);
            }
        }
        dsr_release(rows);
    }
    dsr_release(currents);
    dsr_release(padded);
    return status;
}
