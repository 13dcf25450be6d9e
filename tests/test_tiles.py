"""How convolutions over spikes are cut, as `csrc/ops/spike_tiles.h` plans it: no result tells when that changes."""

import shutil
import subprocess

import libdsr
import pytest

PROGRAM = """
#include "ROOT/csrc/ops/spike_tiles.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **given) {
    size_t number[6];
    if (count != 7)
        return 1;
    for (int i = 0; i < 6; i++)
        number[i] = strtoul(given[i + 1], NULL, 10);
    const dsr_conv_axis axis = {.size = number[1], .out = number[1], .taps = 3, .stride = 1, .dilation = 1, .spread = 1,
                                .before = 1};
    const dsr_conv conv = {.in_channels = number[0], .out_channels = number[0], .groups = 1, .y = axis, .x = axis,
                           .lanes = number[2] * number[3]};
    spike_conv_plan p;
    make_plan(&p, conv, number[2], number[4]);
    printf("%zu %zu %zu %zu", p.tile_y, p.tile_x, p.piece, count_splits(&p, number[5]));
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "tiles.c").write_text(PROGRAM.replace("ROOT", str(libdsr.ROOT)))
    subprocess.run(["gcc", *libdsr.FLAGS, folder / "tiles.c", "-o", folder / "tiles"], check=True)
    return folder / "tiles"


@pytest.mark.parametrize(
    ("channels", "size", "timesteps", "batch", "row", "tasks", "expected"),
    [
        (64, 32, 4, 32, 32, 4, (4, 4, 16, 1)),  # 4 steps of 16 of the samples: 1,024 lanes of a tile
        (64, 32, 4, 1, 32, 4, (8, 8, 1, 1)),  # one sample: a larger tile, so that weights are read for fewer of them
        (64, 32, 1, 30, 32, 4, (6, 6, 30, 1)),
        (64, 32, 100, 1, 32, 4, (3, 3, 1, 1)),  # so many steps that a tile of 4x4 is too much for them
        (512, 4, 4, 1, 32, 4, (4, 4, 1, 4)),  # one tile with much to add: tasks share out its output channels
        (512, 4, 4, 1, 64, 1, (4, 4, 1, 1)),  # one thread for integers: none
        (512, 4, 4, 1, 64, 16, (4, 4, 1, 8)),  # at most a task for each block of output channels
        (32, 4, 4, 1, 32, 4, (4, 4, 1, 1)),  # little to add
    ],
)
def test_tiles(program, channels, size, timesteps, batch, row, tasks, expected):
    """Rows of 32 output channels are those of float weights, rows of 64 those of integers."""
    arguments = map(str, (channels, size, timesteps, batch, row, tasks))
    ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    assert tuple(map(int, ran.stdout.split())) == expected
