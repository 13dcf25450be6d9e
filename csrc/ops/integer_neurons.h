/* Integer neurons at the end of a convolution (kernels/integer_rows.h). */
#ifndef DSR_INTEGER_NEURONS_H
#define DSR_INTEGER_NEURONS_H

#include "row_code.h"

/* Rows of each out block: what `after` has of its channels, and 0 for those that do not exist. */
enum { BIAS, SHORTCUT_WEIGHT, RESET, FIRE, CHANNEL_ROWS };

typedef struct {
    uint32_t *spikes;
    int32_t *channels; /* [out block][CHANNEL_ROWS][DSR_INTEGER_ROW] */
    const dsr_after_integer_conv *after;
    size_t out_channels, pixels, steps, run; /* run: samples, which are the lanes of a step */
    int one_step;                            /* the sums are of one time step, the same at all of them */
} integer_neurons;

static inline int32_t *channel_row(const integer_neurons *o, size_t out, size_t row) {
    return o->channels + (out * CHANNEL_ROWS + row) * DSR_INTEGER_ROW;
}

/* Returns 0 where there is no memory. */
static inline int make_neurons(integer_neurons *o, const dsr_conv *conv, size_t timesteps, uint32_t *spikes,
                               const dsr_after_integer_conv *after) {
    const int32_t *from[CHANNEL_ROWS] = {
        [BIAS] = after->bias, [SHORTCUT_WEIGHT] = after->shortcut_weight, [RESET] = after->reset, [FIRE] = after->fire};
    size_t blocks = dsr_blocks(conv->out_channels, DSR_INTEGER_ROW);
    *o = (integer_neurons){.spikes = spikes,
                           .channels = dsr_scratch(blocks * CHANNEL_ROWS * DSR_INTEGER_ROW, sizeof *o->channels),
                           .after = after,
                           .out_channels = conv->out_channels,
                           .pixels = conv->y.out * conv->x.out,
                           .steps = timesteps,
                           .run = conv->lanes / timesteps};
    for (size_t out = 0; o->channels && out < blocks; out++)
        for (size_t row = 0; row < CHANNEL_ROWS; row++)
            for (size_t i = 0, c = out * DSR_INTEGER_ROW; i < DSR_INTEGER_ROW; i++, c++)
                channel_row(o, out, row)[i] = from[row] && c < conv->out_channels ? from[row][c] : 0;
    return o->channels != NULL;
}

/* All steps of `piece` samples from sample l0 on, at an output pixel; sums are [steps or 1][piece][DSR_INTEGER_ROW]. */
static inline void fire_neurons(const integer_neurons *o, const int32_t *sums, size_t out, size_t pixel, size_t l0,
                                size_t piece) {
    size_t words = DSR_INTEGER_ROW / DSR_WORD;
    for (size_t half = 0; half < words && (out * words + half) * DSR_WORD < o->out_channels; half++) {
        size_t word = out * words + half, at = (word * o->pixels + pixel) * o->steps * o->run + l0;
        size_t first = half * DSR_WORD, existing = dsr_block_size(o->out_channels, DSR_WORD, word);
        int16_t *potentials = o->after->potentials;
        dsr_integer_neurons neurons = {.reset = channel_row(o, out, RESET) + first,
                                       .fire = channel_row(o, out, FIRE) + first,
                                       .shortcut_weight = channel_row(o, out, SHORTCUT_WEIGHT) + first,
                                       .shortcut = o->after->shortcut ? o->after->shortcut + at : NULL,
                                       .exists = existing >= DSR_WORD ? 0xffffffffu : (1u << existing) - 1,
                                       .one_step = o->one_step,
                                       .decay = o->after->decay};
        if (potentials)
            potentials += ((out * o->pixels + pixel) * o->run + l0) * DSR_INTEGER_ROW + first;
        dsr_kernel->integer_neuron_rows(sums + first, o->spikes + at, potentials, o->steps, piece, o->run, &neurons);
    }
}

#endif
