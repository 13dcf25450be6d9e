"""Writes what tests/test_weight_formats.py reads: ``python tests/data/make_formats.py``, with PyTorch 2.13."""

from __future__ import annotations

from pathlib import Path

import torch

NUMBERS = torch.tensor([0.5, -1.25, 3.0, 448.0])
noted = torch.nn.Parameter(NUMBERS.clone())
noted.note = "an attribute"
TENSORS = {
    "negative": torch.complex(torch.zeros(4), -NUMBERS).conj().imag,
    "expanded": torch.full((1,), 0.5).expand(2, 3),
    "windows": NUMBERS.unfold(0, 3, 1),
    "bfloat16": NUMBERS.bfloat16(),
    "float16": NUMBERS.half(),
    "float64": NUMBERS.double(),
    "float8_e4m3fn": NUMBERS.to(torch.float8_e4m3fn),
    "float8_e5m2": NUMBERS.to(torch.float8_e5m2),
    "int8": torch.tensor([-128, 127], dtype=torch.int8),
    "uint16": torch.tensor([0, 65535], dtype=torch.uint16),
    "bool": torch.tensor([True, False]),
    "parameter": noted,
    # not read
    "float8_e4m3fnuz": NUMBERS.to(torch.float8_e4m3fnuz),
    "conjugate": torch.complex(NUMBERS, NUMBERS).conj(),
    "sparse": NUMBERS.to_sparse(),
    "csr": NUMBERS.reshape(2, 2).to_sparse_csr(),
    "quantised": torch.quantize_per_tensor(NUMBERS, 0.5, 3, torch.qint8),
    "meta": torch.empty(2, device="meta"),
    "nested": torch.nested.nested_tensor([NUMBERS, NUMBERS[:2]]),
}

if __name__ == "__main__":
    torch.save(TENSORS, Path(__file__).parent / "formats.pth")
