"""What the expert did: recording, the Zarr store of demonstrations, import and export of other formats.

A demo is an expert's episode. `demos.store` brings in zarr and is not imported here.
"""

from demos.episode import Episode, EpisodeError
from demos.segments import SegmentBatch, SegmentSampler, sample_segments

__all__ = ["Episode", "EpisodeError", "SegmentBatch", "SegmentSampler", "sample_segments"]
