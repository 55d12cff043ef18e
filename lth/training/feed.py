"""Images that lie in a file, gathered by a thread while the device works on those before.

A step then finds them where it would have found them in the device's memory, had they fitted in there.
"""

from __future__ import annotations

import threading
import weakref
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

AHEAD = 3  # batches that may be ready


class Feed:
    """The images of the coming steps, batch by batch, in the order in which they were asked for."""

    def __init__(self, images: Tensor, count: int, device: torch.device) -> None:
        """images: (N, C, H, W) uint8, mapped from a file. count: how many a batch has, for all replicas together."""
        self.on_gpu, self.until = device.type == "cuda", 0
        self.wanted, self.free, self.full = SimpleQueue(), SimpleQueue(), SimpleQueue()
        for _ in range(AHEAD):
            buffer = torch.empty(count, *images.shape[1:], dtype=torch.uint8)
            self.free.put((buffer.pin_memory() if self.on_gpu else buffer, None))
        # the thread knows the queues alone, so that it ends with whoever asks for images
        queues = self.wanted, self.free, self.full
        thread = threading.Thread(target=_gather, args=(images.numpy(), *queues), daemon=True)
        thread.start()
        weakref.finalize(self, _end, thread, *queues[:2])

    def expect(self, step: int, order: Tensor) -> None:
        """Tells which images the steps from `step` on will see, (steps, count) int64; what is known is left out."""
        for places in order[max(0, self.until - step) :].numpy():
            self.wanted.put(places)
        self.until = max(self.until, step + len(order))

    def next(self, images: Tensor) -> None:
        """Puts the next batch into `images`, on the device."""
        buffer = self.full.get()
        if isinstance(buffer, BaseException):
            raise buffer
        images.copy_(buffer, non_blocking=True)
        copied = torch.cuda.current_stream(images.device).record_event() if self.on_gpu else None
        self.free.put((buffer, copied))


def _gather(source: np.ndarray, wanted: SimpleQueue, free: SimpleQueue, full: SimpleQueue) -> None:
    """The thread: fills buffers that are free with images that are wanted, until there are no more."""
    try:
        while (places := wanted.get()) is not None and (found := free.get()) is not None:
            buffer, copied = found
            if copied is not None:
                copied.synchronize()
            np.take(source, places, axis=0, out=buffer.numpy(), mode="clip")  # the mode that needs no copy
            full.put(buffer)
    except BaseException as error:  # noqa: BLE001 - handed to the thread that trains, which raises it
        full.put(error)


def _end(thread: threading.Thread, *queues: SimpleQueue) -> None:
    """Waits for the thread: one that lets go of tensors while Python ends would take the process down."""
    for queue in queues:
        queue.put(None)
    if thread is not threading.current_thread():
        thread.join()
