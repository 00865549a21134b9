"""Layout is checked against coordinates computed one patch at a time."""

import itertools

import numpy as np
import pytest

from guardjax.layout import bucket, feature_index, mrope_positions, pack_vision, vision_layout

MERGE, WINDOW_UNITS = 2, 2
IMAGE, VIDEO = 7, 8
GRIDS = [[(1, 4, 4)], [(1, 6, 10)], [(1, 2, 2)], [(1, 4, 8), (1, 6, 2)], [(3, 6, 4), (1, 10, 2)]]


def processor_order(grids):
    """(image, frame, row, column) of each patch, as the image processor emits them."""
    for image, (time, rows, columns) in enumerate(grids):
        for frame, row, column in itertools.product(range(time), range(0, rows, MERGE),
                                                    range(0, columns, MERGE)):
            for y, x in itertools.product(range(MERGE), range(MERGE)):
                yield image, frame, row + y, column + x


@pytest.mark.parametrize("grids", GRIDS)
def test_blocks_are_exactly_the_windows(grids):
    layout = vision_layout(grids, window_units=WINDOW_UNITS, merge=MERGE)
    patches = list(processor_order(grids))
    side = WINDOW_UNITS * MERGE
    block = np.arange(layout.num_slots) // side**2
    real = layout.gather >= 0
    assert sorted(layout.gather[real]) == list(range(len(patches)))
    window = np.array([hash((i, t, y // side, x // side)) for i, t, y, x in patches])
    in_window = window[layout.gather[real]]
    np.testing.assert_array_equal(in_window[:, None] == in_window,
                                  block[real][:, None] == block[real])


@pytest.mark.parametrize("grids", GRIDS)
def test_coordinates_and_frames_follow_the_patches(grids):
    layout = vision_layout(grids, window_units=WINDOW_UNITS, merge=MERGE)
    patches = np.array(list(processor_order(grids)))
    real = layout.gather >= 0
    np.testing.assert_array_equal(layout.hw[real], patches[layout.gather[real], 2:])
    _, frame = np.unique(patches[:, :2], axis=0, return_inverse=True)
    np.testing.assert_array_equal(layout.frame[real], frame.ravel()[layout.gather[real]])
    assert (layout.frame[~real] == -1).all() and (layout.hw[~real] == 0).all()


@pytest.mark.parametrize("grids", GRIDS)
def test_placeholders_point_to_their_unit(grids):
    layout = vision_layout(grids, window_units=WINDOW_UNITS, merge=MERGE)
    patches = layout.gather.reshape(-1, MERGE**2)[layout.unit_index]
    # Processor order goes through the units as the placeholders do.
    np.testing.assert_array_equal(patches.ravel(), np.arange(patches.size))


def test_a_prompt_without_images_has_an_empty_layout():
    layout = vision_layout([], window_units=WINDOW_UNITS, merge=MERGE)
    assert layout.num_slots == 0 and len(layout.unit_index) == 0
    vision = pack_vision([layout], [None], 16, 3)
    assert vision.patches.shape == (1, 16, 3) and (vision.frame == -1).all()


def test_pack_vision_puts_patches_where_the_layout_says():
    layout = vision_layout([(1, 6, 4)], window_units=WINDOW_UNITS, merge=MERGE)
    patches = np.arange(24 * 3, dtype=np.float32).reshape(24, 3) + 1
    vision = pack_vision([layout], [patches], 48, 3)
    real = np.flatnonzero(layout.gather >= 0)
    np.testing.assert_array_equal(vision.patches[0, real], patches[layout.gather[real]])
    assert vision.patches.dtype == np.float32
    assert np.count_nonzero(vision.patches.any(-1)) == 24
    assert (vision.frame[0] >= 0).sum() == 24


def test_positions_of_text_image_text():
    tokens = [1, 1] + [IMAGE] * 6 + [1, 1]
    positions, next_pos = mrope_positions(tokens, [(1, 4, 6)], image_token_id=IMAGE, merge=MERGE)
    expected = [[0] * 3, [1] * 3,
                [2, 2, 2], [2, 2, 3], [2, 2, 4], [2, 3, 2], [2, 3, 3], [2, 3, 4],
                [5] * 3, [6] * 3]
    np.testing.assert_array_equal(positions, expected)
    assert next_pos == 7 and positions.dtype == np.int32


def test_positions_of_adjacent_images_and_of_an_image_at_the_end():
    tokens = [IMAGE] * 3
    positions, next_pos = mrope_positions(tokens, [(1, 2, 2), (1, 2, 4)], image_token_id=IMAGE,
                                          merge=MERGE)
    np.testing.assert_array_equal(positions, [[0, 0, 0], [1, 1, 1], [1, 1, 2]])
    assert next_pos == 3


def test_positions_of_nothing():
    positions, next_pos = mrope_positions([], [], image_token_id=IMAGE, merge=MERGE)
    assert positions.shape == (0, 3) and next_pos == 0


def test_a_videos_time_goes_by_its_step_and_text_goes_on_after_its_larger_side():
    tokens = [1] + [VIDEO] * 6 + [1] + [IMAGE] * 2 + [VIDEO] * 2
    positions, next_pos = mrope_positions(
        tokens, [(3, 4, 2), (1, 2, 4), (2, 2, 2)], image_token_id=IMAGE, merge=MERGE,
        video_token_id=VIDEO, video_steps=[1.5, 7])
    expected = [[0] * 3,
                [1, 1, 1], [1, 2, 1], [2, 1, 1], [2, 2, 1], [4, 1, 1], [4, 2, 1],
                [3] * 3, [4, 4, 4], [4, 4, 5],
                [6, 6, 6], [13, 6, 6]]
    np.testing.assert_array_equal(positions, expected)
    assert next_pos == 7


def test_features_of_images_and_videos_stand_where_their_placeholders_do():
    grids = [(2, 4, 8), (1, 4, 4), (3, 2, 2)]
    layout = vision_layout(grids, window_units=WINDOW_UNITS, merge=MERGE)
    tokens = np.array([1] + [VIDEO] * 16 + [IMAGE] * 4 + [1] + [VIDEO] * 3)
    index = feature_index(tokens, layout, image_token_id=IMAGE, video_token_id=VIDEO)
    np.testing.assert_array_equal(index[tokens != 1], layout.unit_index)
    assert (index[tokens == 1] == -1).all()
    with pytest.raises(ValueError, match="4 image placeholders"):
        feature_index(tokens, layout, image_token_id=IMAGE)


@pytest.mark.parametrize(("tokens", "steps", "message"), [
    ([VIDEO] * 8, [], "video 0 has no step: 0 video steps"),
    ([VIDEO] * 8, [1, 2], "2 video steps, but 1 videos"),
    ([IMAGE] * 8, [1], "1 video steps, but 0 videos"),
    ([VIDEO] * 8, [-1], "the step of video 0 is -1"),
    ([VIDEO] * 8, [float("nan")], "the step of video 0 is nan"),
    ([VIDEO] * 4 + [IMAGE] * 4, [1], "video 0 of grid .* wants 8 placeholders in a row")])
def test_videos_and_their_steps_must_match(tokens, steps, message):
    with pytest.raises(ValueError, match=message):
        mrope_positions(tokens, [(2, 4, 4)], image_token_id=IMAGE, merge=MERGE,
                        video_token_id=VIDEO, video_steps=steps)


@pytest.mark.parametrize("tokens", [[IMAGE] * 3, [IMAGE] * 5, [1, 1]])
def test_placeholder_count_must_match_the_image(tokens):
    layout = vision_layout([(1, 4, 4)], window_units=WINDOW_UNITS, merge=MERGE)
    with pytest.raises(ValueError, match=f"{tokens.count(IMAGE)} image placeholders.*want 4"):
        feature_index(np.array(tokens), layout, image_token_id=IMAGE)
    with pytest.raises(ValueError, match=f"{tokens.count(IMAGE)} image placeholders.*want 4"):
        mrope_positions(tokens, [(1, 4, 4)], image_token_id=IMAGE, merge=MERGE)


def test_an_interrupted_run_of_placeholders_is_refused():
    tokens = [IMAGE, IMAGE, 1, IMAGE, IMAGE]
    with pytest.raises(ValueError, match="image 0 .* wants 4 placeholders in a row"):
        mrope_positions(tokens, [(1, 4, 4)], image_token_id=IMAGE, merge=MERGE)


@pytest.mark.parametrize("grid", [(1, 3, 4), (1, 4, 5), (0, 4, 4), (1, 0, 4)])
def test_a_grid_that_does_not_divide_into_units_is_refused(grid):
    with pytest.raises(ValueError, match="multiples of 2"):
        vision_layout([grid], window_units=WINDOW_UNITS, merge=MERGE)


def test_pack_vision_refuses_what_does_not_fit():
    layout = vision_layout([(1, 4, 8)], window_units=WINDOW_UNITS, merge=MERGE)
    patches = np.zeros((32, 3), np.float32)
    with pytest.raises(ValueError, match="prompt 0 needs 32 patch slots, more than 16"):
        pack_vision([layout], [patches], 16, 3)
    with pytest.raises(ValueError, match=r"prompt 0 has patches of shape \(31, 3\)"):
        pack_vision([layout], [patches[1:]], 32, 3)
    with pytest.raises(ValueError, match="prompt 0 has patches of shape"):
        pack_vision([layout], [None], 32, 3)
    with pytest.raises(ValueError, match="1 layouts but patches of 2"):
        pack_vision([layout], [patches, patches], 32, 3)


def test_bucket():
    assert bucket(5, [16, 4, 8]) == 8 and bucket(16, [16]) == 16 and bucket(0, [4]) == 4
    with pytest.raises(ValueError, match=r"17 does not fit in any of the sizes \(4, 16\)"):
        bucket(17, [4, 16])
