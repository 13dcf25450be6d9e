/* Reads the steps of networks of integers, and proves that no current can leave 32 bits, as
 * dsr/deploy/integer_checks.py does: a file may say anything. */
#include "reader.h"

#include <stdlib.h>

enum {
    LARGEST_CURRENT = 1 << 30,
    LARGEST_RESET = 4095,
    LEAST_SHIFT = -30,
    MOST_SHIFT = 12,
    NO_LEAK = 1 << DSR_DECAY_BITS
};

static const char *const TOO_LARGE = "has a current that could leave 32 bits";

static void read_taps(reader *r, model_term *term, const model_step *step, const model_step *from) {
    term->conv = read_geometry(r, step, from);
    const size_t taps = multiply(term->conv.y.taps, term->conv.x.taps);
    require(r, !from->amplitudes || taps <= DSR_MOST_TAPS, "has a kernel of too many taps");
    term->shift = (int)read_signed(r, from->amplitudes ? 0 : LEAST_SHIFT, MOST_SHIFT, "has a shift out of range");
    term->is_sum = read_flag(r);
    require(r, !term->is_sum || (term->conv.y.taps > 1 && term->conv.x.taps > 1), "has a sum of kernels of nothing");
    if (r->bad)
        return;
    const size_t stored = term->is_sum ? (term->conv.y.taps - 1) * (term->conv.x.taps - 1) : taps;
    const size_t count = multiply(multiply(step->channels, from->channels / term->conv.groups), stored);
    term->bytes = read_words(r, blocks_of(count, 4));
}

/* How large a term may get in a channel; at least LARGEST_CURRENT if that is too much. */
static int64_t reach_of(const model_term *term, const model_step *from, size_t channel) {
    int64_t sum = 0;
    if (term->is_added)
        return llabs((long long)term->weight[channel]) * from->most;
    const size_t count = from->channels / term->conv.groups * term->conv.y.taps * term->conv.x.taps;
    for (size_t i = 0; i < count; i++)
        sum += abs(weight_of(term, channel * count + i));
    sum *= from->most; /* below 2^31 2^9 2^15 */
    if (sum >= LARGEST_CURRENT)
        return sum;
    if (term->shift >= 0)
        return sum << term->shift;
    const int64_t rounded = (sum >> -term->shift) + 1;
    return sum > rounded ? sum : rounded;
}

static void read_current(reader *r, model_step *step, const model_step *steps) {
    step->start = read_integers(r, step->channels, -LARGEST_CURRENT, LARGEST_CURRENT, TOO_LARGE);
    if (r->bad)
        return;
    step->terms = calloc(step->input_count, sizeof *step->terms);
    require(r, step->terms != NULL, "has more terms than there is memory for");
    for (uint32_t i = 0; i < step->input_count && !r->bad; i++) {
        model_term *term = &step->terms[i];
        const model_step *from = &steps[step->inputs[i]];
        term->is_added = read_flag(r);
        if (!term->is_added) {
            read_taps(r, term, step, from);
            continue;
        }
        require(r, from->channels == step->channels && from->height == step->height && from->width == step->width,
                "adds signals of another shape");
        term->weight =
            read_integers(r, step->channels, -DSR_INTEGER_LIMIT, DSR_INTEGER_LIMIT, "has weights out of range");
    }
    for (size_t c = 0; c < step->channels && !r->bad; c++) {
        int64_t reach = llabs((long long)step->start[c]);
        for (uint32_t i = 0; i < step->input_count && reach < LARGEST_CURRENT; i++)
            reach += reach_of(&step->terms[i], &steps[step->inputs[i]], c);
        require(r, reach < LARGEST_CURRENT, TOO_LARGE);
    }
}

void read_integer_step(reader *r, model_step *step, const model_step *steps) {
    const model_step *from = step->kind == STEP_INTEGER_INPUT ? NULL : &steps[step->inputs[0]];
    const char *leak = "has a decay out of range";
    switch (step->kind) {
    case STEP_INTEGER_INPUT:
        step->shift = read_signed(r, -126, 126, "has a scale out of range");
        step->most = read_signed(r, 1, DSR_INTEGER_LIMIT, "has a largest number out of range");
        require(r, step->amplitudes == 0, "gives spikes, which it cannot");
        break;
    case STEP_INTEGER_NEURONS:
        read_current(r, step, steps);
        step->reset = read_integers(r, step->channels, 1, LARGEST_RESET, "has a threshold out of range");
        step->fires_at = read_integers(r, step->channels, 1, LARGEST_RESET, "has a threshold out of range");
        for (size_t c = 0; c < step->channels && !r->bad; c++)
            require(r, step->fires_at[c] <= step->reset[c], "fires above its threshold");
        step->leak = read_signed(r, 0, NO_LEAK, leak);
        step->most = 1;
        require(r, step->amplitudes == 1, "gives no spikes");
        break;
    case STEP_READ_CURRENT:
        read_current(r, step, steps);
        step->leak = NO_LEAK;
        step->unit = read_floats(r, step->channels, 0, "has a unit that is not finite");
        require(r, step->amplitudes == 0, "gives spikes, which it cannot");
        break;
    default:
        step->leak = read_signed(r, 0, NO_LEAK, leak);
        step->unit = read_floats(r, step->channels, 0, "has a unit that is not finite");
        require(r,
                from->amplitudes && from->most == 1 && from->channels == step->channels &&
                    from->height == step->height && from->width == step->width,
                "reads what is not spikes of its shape");
        require(r, step->amplitudes == 0, "gives spikes, which it cannot");
    }
}
