"""All tensors of a checkpoint as floats, under the names that they have among plain ones.

For comparing: what an engine loads is cut and packed by `models.loading.reader`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quire.models.loading.checkpoint import read_checkpoint
from quire.models.loading.files import opened
from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders.table import decode
from quire.quant.formats import PLAIN


def floats_of(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, numbers in float32 or the type they are kept in), one tensor after the other.

    config  the folder's config.json. Raises ModelLoadError for files that cannot be read.
    """
    checkpoint = read_checkpoint(folder, config)
    with ExitStack() as stack:
        files = {
            path: stack.enter_context(opened(path))
            for path in sorted({header.path for header in checkpoint.files.values()})
        }
        for name, stored in checkpoint.tensors.items():
            members = {
                role: files[checkpoint.files[member].path].read(
                    member, checkpoint.files[member], stored.options.get("expert")
                )
                for role, member in stored.members.items()
            }
            kept = replace(stored, format=PLAIN) if stored.decoder else stored
            found = decode(members, kept, torch.float32)
            yield name, found.dequantized() if isinstance(found, QuantizedWeight) else found
