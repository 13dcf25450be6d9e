/* The table of what Python can call. */
#ifndef DSR_BIND_H
#define DSR_BIND_H

#include "args.h"

typedef struct {
    const char *name;
    const dsr_arg *arguments;
    size_t count;
    int (*check)(const dsr_call *call); /* relations between axes, or NULL */
    dsr_status (*run)(dsr_call *call);
    int returns; /* 1: run leaves a number in call->result, returned as a float; 0: None */
} dsr_entry;

extern const dsr_entry dsr_entries[];
extern const size_t dsr_entry_count;

#endif
