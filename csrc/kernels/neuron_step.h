/* The step of a neuron: charge, fire, reset. Included once per real type. */

/* The numbers of a dsr_neuron in the type of the arrays. */
typedef struct {
    REAL decay, gain, v_threshold, fire, amplitude;
} NAME(step_numbers);

static inline NAME(step_numbers) NAME(numbers_of)(const dsr_neuron *neuron) {
    return (NAME(step_numbers)){(REAL)neuron->decay, (REAL)neuron->gain, (REAL)neuron->v_threshold, (REAL)neuron->fire,
                                (REAL)neuron->amplitude};
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

    #define SELECT_NUMBER(fires, value) ((fires) ? (value) : 0)

static inline int is_leaky(const dsr_neuron *neuron) {
    return neuron->decay != 1 || neuron->gain != 1;
}
#endif
