/* The step of a neuron: charge, fire, reset. Included once per real type. */

/* The numbers of a dsr_neuron in the type of the arrays. */
typedef struct {
    REAL decay, gain, v_threshold, fire, amplitude, levels;
} NAME(step_numbers);

static inline NAME(step_numbers) NAME(numbers_of)(const dsr_neuron *neuron) {
    return (NAME(step_numbers)){(REAL)neuron->decay, (REAL)neuron->gain,      (REAL)neuron->v_threshold,
                                (REAL)neuron->fire,  (REAL)neuron->amplitude, (REAL)neuron->levels};
}

#ifndef NEURON_STEP
/* Moves the potential v by the input x and says in `fires` whether there is a spike: for numbers and for vectors of
 * them, with their own select(fires, value), which is the value or 0. `leaky` is a constant wherever this is used, so
 * that a loop of IF neurons adds and does nothing else; 1 v + 1 x has the same bits. */
    #define NEURON_STEP(leaky, numbers, v, x, fires, select)                                                           \
        do {                                                                                                           \
            __typeof__(v) u = (leaky) ? (numbers).decay * (v) + (numbers).gain * (x) : (v) + (x);                      \
            (fires) = u >= (numbers).fire;                                                                             \
            (v) = u - select(fires, (numbers).v_threshold);                                                            \
        } while (0)

/* One binary digit, worth `value`, of the number of spikes k that a potential u gives, see dsr_neuron; the highest
 * first. The thresholds rise with k, so a digit is 1 where the least number with this digit has its threshold reached.
 */
    #define GRADED_DIGIT(numbers, u, k, value, fires, select)                                                          \
        do {                                                                                                           \
            __typeof__(u) more = (k) + (value);                                                                        \
            (fires) = ((u) >= (numbers).fire + (more - 1.0f) * (numbers).v_threshold) & (more <= (numbers).levels);    \
            (k) += select(fires, value);                                                                               \
        } while (0)

    #define SELECT_NUMBER(fires, value) ((fires) ? (value) : 0)

static inline int is_leaky(const dsr_neuron *neuron) {
    return neuron->decay != 1 || neuron->gain != 1;
}
#endif
