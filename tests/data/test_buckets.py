"""Aspect buckets: the lists of sd-scripts, a symmetric choice, crops that cover and stay inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.data.buckets import choose_bucket, crop_box, make_buckets, rules_for, square_rules
from maquette.errors import MaquetteError

sides = st.integers(1, 6000)
sizes = st.tuples(sides, sides)
LISTS = [make_buckets(512), make_buckets(1024, 256, 2048, 64), rules_for(64, 4).buckets(), make_buckets((512, 768))]


def test_lists_are_those_of_sd_scripts() -> None:
    landscape = [(1024, 256), (960, 256), (896, 256), (832, 256), (768, 320), (704, 320), (640, 384), (576, 448)]
    assert make_buckets(512) == sorted([*landscape, (512, 512), *((h, w) for w, h in landscape)])
    sdxl = make_buckets(1024, 256, 2048, 64)
    assert len(sdxl) == 41
    assert {(1024, 1024), (1152, 896), (1216, 832), (1344, 768), (1536, 640), (2048, 512), (256, 2048)} <= set(sdxl)


def test_usual_rules_follow_the_base() -> None:
    assert (rules_for(512).min_size, rules_for(512).max_size, rules_for(512).step) == (256, 1024, 64)
    assert (rules_for(1024).min_size, rules_for(1024).max_size, rules_for(1024).step) == (512, 2048, 64)
    pocket = rules_for(64, 4)
    assert (pocket.min_size, pocket.max_size, pocket.step) == (32, 128, 16)
    assert square_rules(72).buckets() == [(72, 72)]
    assert (64, 64) in pocket.buckets() and (80, 48) in pocket.buckets() and len(pocket.buckets()) == 9


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 30), st.integers(0, 30), st.sampled_from([8, 16, 32, 64]))
def test_buckets_keep_limits_area_and_step(width: int, height: int, below: int, above: int, step: int) -> None:
    width, height = width * step, height * step
    low, high = max(step, min(width, height) - below * step), max(width, height) + above * step
    buckets = make_buckets((width, height), low, high, step)
    assert buckets == sorted(set(buckets))
    for w, h in buckets:
        assert w % step == h % step == 0
        assert low <= w <= high and low <= h <= high
        assert w * h <= width * height
        assert (h, w) in buckets


@pytest.mark.parametrize(("low", "high", "step"), [(64, 32, 8), (0, 64, 8), (32, 64, 0), (600, 640, 64)])
def test_senseless_numbers_are_refused(low: int, high: int, step: int) -> None:
    with pytest.raises(MaquetteError, match="No buckets"):
        make_buckets(512, low, high, step)


@given(sizes, st.sampled_from(LISTS))
def test_choice_is_symmetric_and_nearest_by_ratio(size: tuple[int, int], buckets: list[tuple[int, int]]) -> None:
    width, height = size
    chosen = choose_bucket(size, buckets)

    def off(bucket: tuple[int, int]) -> float:
        factor = (bucket[0] / bucket[1]) / (width / height)
        return max(factor, 1 / factor)

    assert chosen in buckets
    assert off(chosen) <= min(map(off, buckets)) * (1 + 1e-12)
    if width != height:
        assert choose_bucket((height, width), buckets) == chosen[::-1]


def test_portrait_and_landscape_of_one_camera_get_mirror_buckets() -> None:
    # by absolute difference of w/h, 4000 x 2150 and 2150 x 4000 would land in unlike buckets
    for size in [(4000, 3000), (4000, 2150), (3000, 2000), (1920, 1080), (2300, 1000)]:
        wide, tall = choose_bucket(size, make_buckets(512)), choose_bucket(size[::-1], make_buckets(512))
        assert tall == wide[::-1]
    assert choose_bucket((640, 384), make_buckets(512)) == (640, 384)
    assert choose_bucket((1000, 1000), make_buckets(512)) == (512, 512)


@given(sizes, st.sampled_from(LISTS), st.floats(0, 1), st.floats(0, 1))
def test_crop_covers_the_bucket_inside_the_photo(
    size: tuple[int, int], buckets: list[tuple[int, int]], x: float, y: float
) -> None:
    crop = crop_box(size, choose_bucket(size, buckets), (x, y))
    assert crop.scaled[0] >= crop.bucket[0] and crop.scaled[1] >= crop.bucket[1]
    assert 0 <= crop.left <= crop.scaled[0] - crop.bucket[0]
    assert 0 <= crop.top <= crop.scaled[1] - crop.bucket[1]
    left, top, right, bottom = crop.box
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    assert 0 <= crop.lost < 1
    # one side fits exactly: no more is cut than must be
    assert crop.scaled[0] == crop.bucket[0] or crop.scaled[1] == crop.bucket[1]


def test_crop_offset_is_on_the_axis_that_is_cut() -> None:
    crop = crop_box((1000, 1000), (1216, 832))  # the case where other trainers record (left, top) = (192, 0)
    assert (crop.scaled, crop.left, crop.top) == ((1216, 1216), 0, 192)
    assert crop.box == pytest.approx((0, 157.9, 1000, 842.1), abs=0.1)
    assert crop.enlargement == pytest.approx(1.216) and crop.lost == pytest.approx(1 - 832 / 1216)
