"""Host-side layout of images and tokens: window order, M-RoPE ids, image features, buckets.

NumPy only. An image or video is a grid (frames, rows, columns) of patches; a frame here is a
temporal patch, two pictures of a video or one still picture twice. Three orders occur:

* processor order, as Hugging Face's image processor gives patches: frame by frame, merged unit by
  merged unit in rows, the patches of a unit consecutive;
* window order, as the device sees them: window by window, every window filled up to the same
  number of slots, units still whole. Window attention is then a reshape, and -1 pads are masked;
* placeholder order, as the prompt sees features: merged units of each image, frame by frame, in
  rows. `VisionLayout.unit_index` maps it to window order, so nothing is ever permuted back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from guardjax.types import VisionInputs

Grid = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class VisionLayout:
    """Where the patches of one prompt's images go. N slots is a whole number of windows."""

    grids: tuple[Grid, ...]
    gather: np.ndarray        # [N] int32, window-order slot -> processor-order patch; -1 pads
    hw: np.ndarray            # [N, 2] int32, row and column of the patch in its frame; 0 in pads
    frame: np.ndarray         # [N] int32, frames counted over all images; -1 pads
    unit_index: np.ndarray    # [units] int32, i-th placeholder -> feature slot
    merge: int                # side of a merged unit in patches

    @property
    def num_slots(self) -> int:
        return len(self.gather)


def vision_layout(grids: Sequence[Sequence[int]], *, window_units: int, merge: int) -> VisionLayout:
    """Lays out the images of one prompt.

    Args:
        grids: (frames, rows, columns) in patches of each image; may be empty.
        window_units: merged units along one side of a window (`VisionConfig.window_units`).
        merge: patches along one side of a merged unit.

    Raises:
        ValueError: a grid with no patches, or whose rows or columns do not divide into units.
    """
    slots, hw, frames, num_patches, num_frames = [], [], [], 0, 0
    for grid in grids:
        time, rows, columns = _check_grid(grid, merge)
        units = np.arange(time * (rows // merge) * (columns // merge))
        units = units.reshape(time, rows // merge, columns // merge)
        windows = _windows(units, window_units)                     # [windows, units], -1 pads
        patches = windows[..., None] * merge**2 + np.arange(merge**2)
        patches = np.where(windows[..., None] < 0, -1, patches).reshape(-1)
        real = patches >= 0
        slots.append(np.where(real, patches + num_patches, -1))
        where = _rows_and_columns(time, rows, columns, merge)
        hw.append(np.where(real[:, None], where[patches], 0))
        frames.append(np.where(real, patches // (rows * columns) + num_frames, -1))
        num_patches += time * rows * columns
        num_frames += time
    gather = _join(slots)
    return VisionLayout(
        grids=tuple((int(t), int(h), int(w)) for t, h, w in grids), gather=gather,
        hw=_join(hw, (2,)), frame=_join(frames), unit_index=_unit_index(gather, merge**2),
        merge=merge)


def pack_vision(layouts: Sequence[VisionLayout], patches: Sequence[np.ndarray | None],
                num_slots: int, patch_dim: int) -> VisionInputs:
    """One batch of prompts' patches in window order, each padded to `num_slots`.

    Args:
        layouts: one a prompt; a prompt without images has the layout of no grids.
        patches: [patches of all its images, patch_dim] in processor order, or None for no image.
        num_slots: N, a bucket that holds the largest layout and is a whole number of windows.
        patch_dim: length of a flattened patch.

    Raises:
        ValueError: a layout larger than `num_slots`, or patches that do not match their layout.
    """
    batch = len(layouts)
    if len(patches) != batch:
        raise ValueError(f"{batch} layouts but patches of {len(patches)} prompts")
    packed = np.zeros((batch, num_slots, patch_dim), np.float32)
    hw = np.zeros((batch, num_slots, 2), np.int32)
    frame = np.full((batch, num_slots), -1, np.int32)
    for row, (layout, flat) in enumerate(zip(layouts, patches)):
        if layout.num_slots > num_slots:
            raise ValueError(f"prompt {row} needs {layout.num_slots} patch slots, "
                             f"more than {num_slots}")
        expected = (sum(t * h * w for t, h, w in layout.grids), patch_dim)
        found = (0, patch_dim) if flat is None else flat.shape
        if found != expected:
            raise ValueError(f"prompt {row} has patches of shape {found}, its grids "
                             f"{layout.grids} want {expected}")
        real = np.flatnonzero(layout.gather >= 0)
        if flat is not None:
            packed[row, real] = flat[layout.gather[real]]
        hw[row, :layout.num_slots] = layout.hw
        frame[row, :layout.num_slots] = layout.frame
    return VisionInputs(patches=packed, hw=hw, frame=frame)


def feature_index(tokens: np.ndarray, layout: VisionLayout, *, image_token_id: int,
                  video_token_id: int | None = None) -> np.ndarray:
    """[T] int32: the feature slot of each placeholder in `tokens` [T], -1 for text.

    `layout` has the images and videos in the order of their placeholders. Without a
    `video_token_id` there are only images.

    Raises:
        ValueError: the number of placeholders does not match the grids.
    """
    is_placeholder = np.isin(tokens, _placeholders(image_token_id, video_token_id))
    _check_count(int(is_placeholder.sum()), len(layout.unit_index), layout.grids)
    index = np.full(is_placeholder.shape, -1, np.int32)
    index[is_placeholder] = layout.unit_index
    return index


def mrope_positions(tokens: np.ndarray, grids: Sequence[Sequence[int]], *, image_token_id: int,
                    merge: int, video_token_id: int | None = None,
                    video_steps: Sequence[float] = ()) -> tuple[np.ndarray, int]:
    """M-RoPE ids of one unpadded prompt, as `get_rope_index` of transformers 5.23 gives them.

    Text counts up by one on all three axes. The placeholders of an image or a video share one
    start: time is the frame (of a video, the frame times its step, cut to a whole number), then
    row and column of the merged unit. Text after it, an answer too, continues at the larger of its
    sides, also where a video's time has gone further (transformers 4 continued after that).

    Args:
        tokens: [T] int.
        grids: (frames, rows, columns) in patches, in the order of the placeholders.
        image_token_id: an image's placeholder.
        merge: patches along one side of a merged unit.
        video_token_id: a video's placeholder; None where there can be no video.
        video_steps: for each video, how far time moves on from one temporal patch to the next:
            `VisionConfig.tokens_per_second` times the seconds of a temporal patch
            (transformers' `second_per_grid_ts`). Computed in float32, as the reference does.

    Returns:
        (positions [T, 3] int32, the position of text that goes on after it).

    Raises:
        ValueError: a run of placeholders does not match the grid that it should hold, or the
            videos are not as many as their steps.
    """
    tokens = np.asarray(tokens)
    is_text = ~np.isin(tokens, _placeholders(image_token_id, video_token_id))
    units = [_unit_grid(grid, merge) for grid in grids]
    total = sum(t * h * w for t, h, w in units)
    _check_count(int((~is_text).sum()), total, grids)
    positions = np.zeros((len(tokens), 3), np.int32)
    start, current, item, video = 0, 0, 0, 0
    while start < len(tokens):
        if is_text[start]:
            later = np.flatnonzero(~is_text[start:])
            end = start + int(later[0]) if len(later) else len(tokens)
            positions[start:end] = (np.arange(end - start) + current)[:, None]
            current += end - start
        else:
            time, rows, columns = units[item]
            end = start + time * rows * columns
            is_video = tokens[start] == video_token_id
            if not (tokens[start:end] == tokens[start]).all():
                raise ValueError(f"{'video' if is_video else 'image'} {item} of grid "
                                 f"{tuple(grids[item])} wants {end - start} placeholders in a row")
            ids = np.indices((time, rows, columns)).reshape(3, -1).T
            if is_video:
                ids[:, 0] = _video_time(ids[:, 0], video_steps, video)
                video += 1
            positions[start:end] = ids + current
            current += max(rows, columns)
            item += 1
        start = end
    if video != len(video_steps):
        raise ValueError(f"{len(video_steps)} video steps, but {video} videos")
    return positions, current


def plain_positions(num: int) -> tuple[np.ndarray, int]:
    """Positions of a prompt of `num` tokens that are counted alike: ([num, 3] int32, the next)."""
    return np.repeat(np.arange(num, dtype=np.int32)[:, None], 3, axis=1), num


def bucket(n: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes` that holds `n`.

    Raises:
        ValueError: none does.
    """
    fitting = [size for size in sizes if size >= n]
    if not fitting:
        raise ValueError(f"{n} does not fit in any of the sizes {tuple(sizes)}")
    return min(fitting)


def _windows(units: np.ndarray, side: int) -> np.ndarray:
    """[frames, rows, columns] unit numbers to [windows, side * side]; -1 fills the last windows."""
    time, rows, columns = units.shape
    padded = np.pad(units, ((0, 0), (0, -rows % side), (0, -columns % side)), constant_values=-1)
    blocks = padded.reshape(time, padded.shape[1] // side, side, padded.shape[2] // side, side)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(-1, side * side)


def _rows_and_columns(time: int, rows: int, columns: int, merge: int) -> np.ndarray:
    """[patches, 2]: row and column of each patch in processor order."""
    grid = np.indices((rows, columns)).reshape(2, rows // merge, merge, columns // merge, merge)
    return np.tile(grid.transpose(1, 3, 2, 4, 0).reshape(-1, 2), (time, 1))


def _unit_index(gather: np.ndarray, patches_per_unit: int) -> np.ndarray:
    """Inverts the unit order. Processor order counts units as placeholders do."""
    units = gather[::patches_per_unit] // patches_per_unit
    slots = np.flatnonzero(units >= 0)
    index = np.zeros(len(slots), np.int32)
    index[units[slots]] = slots
    return index


def _check_grid(grid: Sequence[int], merge: int) -> Grid:
    time, rows, columns = (int(n) for n in grid)
    if min(time, rows, columns) < 1 or rows % merge or columns % merge:
        raise ValueError(f"grid {(time, rows, columns)} must be positive, with rows and columns "
                         f"that are multiples of {merge}")
    return time, rows, columns


def _unit_grid(grid: Sequence[int], merge: int) -> Grid:
    time, rows, columns = _check_grid(grid, merge)
    return time, rows // merge, columns // merge


def _placeholders(image_token_id: int, video_token_id: int | None) -> list[int]:
    return [image_token_id] if video_token_id is None else [image_token_id, video_token_id]


def _video_time(frame: np.ndarray, steps: Sequence[float], video: int) -> np.ndarray:
    """Time ids, relative to the video's start, of its `frame` numbers."""
    if video >= len(steps):
        raise ValueError(f"video {video} has no step: {len(steps)} video steps were given")
    if not 0 <= steps[video] < np.inf:
        raise ValueError(f"the step of video {video} is {steps[video]}; it must be at least 0")
    return (frame.astype(np.float32) * np.float32(steps[video])).astype(np.int32)


def _check_count(found: int, wanted: int, grids: Sequence[Sequence[int]]) -> None:
    if found != wanted:
        raise ValueError(f"{found} image placeholders, but images of grids "
                         f"{[tuple(int(n) for n in g) for g in grids]} want {wanted}")


def _join(parts: list[np.ndarray], trailing: tuple[int, ...] = ()) -> np.ndarray:
    if not parts:
        return np.zeros((0, *trailing), np.int32)
    return np.concatenate(parts).astype(np.int32)
