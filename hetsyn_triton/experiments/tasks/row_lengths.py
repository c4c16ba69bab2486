"""The length of each row of an HDF5 dataset with rows of different lengths, as the file states it.

HDF5 allocates the stated length before it looks for the values: one wrong byte can take 5 GB. A
dataset of n rows stores n references: the length (4 bytes), the address of a heap, and the number
of an object in it (4 bytes). A heap has a header, and objects of a header and values; HDF5 never
ends if an unused one has the length 0.
"""

from typing import BinaryIO

import h5py
import numpy as np

from .data_error import DataError


def row_lengths(rows: h5py.Dataset, file: BinaryIO) -> np.ndarray:
    """Return the stated lengths [n] of `rows` [n], which is in the open `file`; no row is read.

    Raises:
        DataError: If the references are stored neither in one piece nor in chunks, or if HDF5
            cannot walk through the heaps.
    """
    settings = rows.id.get_create_plist()
    address, length = rows.file.id.get_create_plist().get_sizes()
    stored = np.dtype([("length", "<u4"), ("heap", f"<u{address}"), ("number", "<u4")])
    place = rows.id.get_offset()
    if settings.get_layout() == h5py.h5d.CHUNKED:
        found = _from_chunks(rows, settings, stored)
    elif settings.get_layout() == h5py.h5d.CONTIGUOUS and place is not None:
        file.seek(place)
        found = np.frombuffer(file.read(len(rows) * stored.itemsize), stored)
    else:
        raise DataError(
            f"{file.name}: {rows.name[1:]}: expected rows in one piece or in chunks, "
            "got another layout"
        )
    for heap in np.unique(found["heap"][found["length"] > 0]):
        file.seek(rows.file.userblock_size + int(heap))
        if not _is_heap(file, length):
            raise DataError(f"{file.name}: {rows.name[1:]}: expected a heap at byte {heap}")
    return np.asarray(found["length"])


def _from_chunks(rows: h5py.Dataset, settings: h5py.h5p.PropDCID, stored: np.dtype) -> np.ndarray:
    """Return the references, after HDF5 has undone compression and other filters."""
    same = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    same.set_chunk(rows.chunks)
    for number in range(settings.get_nfilters()):
        code, flags, values, _ = settings.get_filter(number)
        same.set_filter(code, flags, values)
    kind = h5py.h5t.py_create(np.dtype(f"V{stored.itemsize}"))
    with h5py.File("references", "w", driver="core", backing_store=False) as memory:
        copy = h5py.h5d.create(memory.id, b"rows", kind, rows.id.get_space(), same)
        for start in range(0, len(rows), rows.chunks[0]):
            if rows.id.get_chunk_info_by_coord((start,)).size:  # otherwise all are empty
                mask, content = rows.id.read_direct_chunk((start,))
                copy.write_direct_chunk((start,), content, mask)
        del copy  # open, it would hide which filters the last chunk was stored without
        return np.asarray(memory["rows"][()]).view(stored)


def _is_heap(file: BinaryIO, length: int) -> bool:
    """Return whether HDF5 can walk through the heap here; sizes in it have `length` bytes."""
    head = file.read(8 + length)
    size = int.from_bytes(head[8:], "little") - len(head)
    if head[:4] != b"GCOL" or size < 0:
        return False
    place = 0
    while place + 8 + length <= size:
        start = file.tell()
        head = file.read(8 + length)
        need = int.from_bytes(head[8:], "little")
        if head[:2] != b"\0\0":  # an object in use, padded to 8 bytes
            need = len(head) + need + -need % 8
        if not 0 < need <= size - place or len(head) < 8 + length:
            return False
        place += need
        file.seek(start + need)
    return True
