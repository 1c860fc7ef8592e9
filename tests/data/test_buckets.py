"""Aspect buckets: the lists of sd-scripts, a symmetric choice, crops that cover and stay inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.data.buckets import (
    BucketRules,
    bucket_within,
    choose_bucket,
    crop_box,
    cut_places,
    make_buckets,
    rules_for,
    square_rules,
)
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


@given(sizes, st.sampled_from([64 * 64, 512 * 512, 512 * 768, 1024 * 1024]), st.sampled_from([8, 16, 32, 64]))
def test_a_bucket_without_enlarging(size: tuple[int, int], area: int, step: int) -> None:
    bucket = bucket_within(size, area, step)
    mirrored = bucket_within(size[::-1], area, step)
    if bucket is None:
        assert mirrored is None and (min(size) < step or max(size) / min(size) > area / step**2 / 4)
        return
    assert mirrored is not None and (size[0] == size[1] or mirrored == bucket[::-1])
    assert bucket[0] % step == bucket[1] % step == 0 and bucket[0] * bucket[1] <= area
    crop = crop_box(size, bucket)
    assert crop.enlargement <= 1
    if size[0] * size[1] <= area:  # nothing but what is over whole steps is given away
        assert bucket == (size[0] // step * step, size[1] // step * step)


def test_buckets_without_enlarging_by_hand() -> None:
    # where other trainers land a step lower, at 960 x 960
    assert bucket_within((3072, 3000), 1024 * 1024, 64) == (1024, 1024)
    assert bucket_within((4000, 3000), 512 * 512, 64) == (576, 448)  # 591 x 443 has the area
    assert bucket_within((300, 200), 512 * 512, 64) == (256, 192)
    assert bucket_within((300, 60), 512 * 512, 64) is None
    rules = BucketRules((512, 512), 256, 1024, 64, no_upscale=True)
    assert rules.crop((300, 200), rules.buckets()) == crop_box((300, 200), (256, 192))
    assert rules.crop((300, 60), rules.buckets()) is None


@given(sizes, st.sampled_from(LISTS), st.integers(1, 9))
def test_places_of_a_cut_are_distinct_and_reach_both_ends(
    size: tuple[int, int], buckets: list[tuple[int, int]], most: int
) -> None:
    crop = crop_box(size, choose_bucket(size, buckets))
    spare = crop.scaled[0] - crop.bucket[0], crop.scaled[1] - crop.bucket[1]
    places = [(place.left, place.top) for place in cut_places(crop, most)]
    assert len(set(places)) == len(places) == min(most, max(spare) + 1)
    assert all(0 <= left <= spare[0] and 0 <= top <= spare[1] for left, top in places)
    if len(places) > 1:
        longer = spare.index(max(spare))
        assert {place[longer] for place in places} >= {0, spare[longer]}
