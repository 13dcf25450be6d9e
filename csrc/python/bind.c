/* The table of entries, and the check that those over images share. */
#include "bind.h"

#define ADDRESS_OF_ENTRY(name) &dsr_entry_##name,
const dsr_entry *const dsr_entries[DSR_ENTRY_COUNT] = {DSR_ENTRIES(ADDRESS_OF_ENTRY)};

int dsr_check_windows(const dsr_call *c, char image, char windows, size_t kernel, size_t stride, size_t padding) {
    size_t size = AXIS(c, image) + 2 * padding;
    if (size < kernel)
        return dsr_refuse(c, AXIS_OF(c, image), "an image at least as large as the window (with its padding)");
    return dsr_expect_axis(c, windows, (size - kernel) / stride + 1, "(size + 2 padding - kernel) / stride + 1");
}
