"""Spikes stored as events, and binned into the network input of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

BINNINGS = ("plain", "official")


class Events(NamedTuple):
    """The spikes of n samples, one sample after the other.

    Attributes:
        times: Times [m] in whole microseconds, int32.
        channels: Channels [m], int16.
        starts: First event of each sample, and their number, [n + 1], int64.
    """

    times: Tensor
    channels: Tensor
    starts: Tensor

    def take(self, rows: Tensor) -> "Events":
        """Return the samples `rows` [k], in that order."""
        first = self.starts[rows]
        counts = self.starts[rows + 1] - first
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        places = torch.arange(int(starts[-1])) + (first - starts[:-1]).repeat_interleave(counts)
        return Events(self.times[places], self.channels[places], starts)


def joined(parts: list[Events]) -> Events:
    """Return all samples of `parts`, in their order."""
    ends = torch.tensor([0] + [len(part.times) for part in parts]).cumsum(0)
    return Events(
        torch.cat([part.times for part in parts]),
        torch.cat([part.channels for part in parts]),
        torch.cat(
            [part.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
            + [ends[-1:]]
        ),
    )


def bin_events(events: Events, steps: int, channels: int, width_us: int, binning: str) -> Tensor:
    """Return the input [steps, samples, channels]: 1 if a channel has an event in a step, else 0.

    With "plain" binning, step k has the times [k, k + 1) * `width_us`. With "official" binning, it
    has ((k - 1) * `width_us`, k * `width_us`], so step 0 has only time 0, and the channels are
    reversed. Events after the last step are ignored.
    """
    count = len(events.starts) - 1
    sample = torch.arange(count).repeat_interleave(events.starts.diff())
    channel = events.channels.long()
    if binning == "official":
        step = (events.times + (width_us - 1)).div(width_us, rounding_mode="floor")
        channel = channels - 1 - channel
    else:
        step = events.times.div(width_us, rounding_mode="floor")
    # Later events go to one extra step that is cut off, which is faster than filtering them.
    places = (step.clamp(max=steps) * count + sample) * channels + channel
    shown = torch.zeros((steps + 1) * count * channels).index_fill_(0, places, 1)
    return shown.view(steps + 1, count, channels)[:steps]
