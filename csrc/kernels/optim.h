/* Optimisers: one pass over parameter, gradient and state. */

static void sgd_update(float *value, const float *grad, float *buffer, size_t n, dsr_sgd sgd) {
    for (size_t i = 0; i < n; i++) {
        float d = grad[i] + sgd.weight_decay * value[i];
        float b = sgd.first ? d : sgd.momentum * buffer[i] + d;
        buffer[i] = b;
        value[i] -= sgd.learning_rate * (sgd.nesterov ? d + sgd.momentum * b : b);
    }
}
