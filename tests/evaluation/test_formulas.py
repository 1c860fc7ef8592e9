"""Each measure on numbers whose answer is known."""

import pytest
import torch

from maquette.evaluation import measures as M


def test_of_what_a_diverged_file_answers_nothing_is_left() -> None:
    x = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[1, 0, 2, 1], broken[2, 1, 0, 0], broken[3, 0, 0, 0] = torch.nan, -torch.inf, 1e20
    assert torch.equal(M.usable(x), x)
    kept = M.usable(broken)
    assert torch.equal(kept[0], x[0]) and not kept[1:].any()


def test_relative_loss_weighs_every_timestep_alike() -> None:
    # 2 photos x 2 timesteps; the base's loss is 1 at the first and 100 at the second timestep.
    target = torch.zeros(4, 1, 1, 1)
    base = torch.tensor([1.0, 10.0, 1.0, 10.0]).reshape(4, 1, 1, 1)
    said = torch.tensor([0.5**0.5, 10.0, 1.0, 0.0]).reshape(4, 1, 1, 1)
    # photo 0: half the base's loss at the first timestep, all of it at the second; photo 1: all and none.
    assert M.relative_loss(said, base, target, 2, 2).tolist() == pytest.approx([0.75, 0.5])


def test_drift_is_one_where_the_change_is_as_large_as_the_prompts_own() -> None:
    base, empty = torch.full((2, 4, 2, 2), 3.0), torch.full((2, 4, 2, 2), 1.0)
    assert M.drift(base + 2.0, base, empty).tolist() == pytest.approx([1.0, 1.0])
    assert M.drift(base, base, empty).tolist() == [0.0, 0.0]


def test_leak_is_the_share_of_the_change_that_the_class_word_calls() -> None:
    base = torch.zeros(1, 1, 1, 2)
    learned = torch.tensor([2.0, 0.0]).reshape(1, 1, 1, 2)
    assert M.leak(base, learned, base).item() == 0.0
    assert M.leak(0.5 * learned, learned, base).item() == pytest.approx(0.5)
    assert M.leak(torch.tensor([0.0, 9.0]).reshape(1, 1, 1, 2), learned, base).item() == 0.0  # drift, but no leak


def test_edit_retention_is_one_for_the_bases_own_change_and_less_for_a_weaker_one() -> None:
    change = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert M.edit_retention(change, change).mean().item() == pytest.approx(1.0)
    assert M.edit_retention(0.4 * change, change).mean().item() == pytest.approx(0.4)


def test_likeness_is_zero_for_class_pictures_and_one_for_references_among_themselves() -> None:
    assert M.likeness(torch.tensor([-0.2, 0.8, 0.3]), -0.2, 0.8).tolist() == pytest.approx([0.0, 1.0, 0.5])


def test_identity_is_the_share_of_pairs_in_which_the_photo_is_nearer() -> None:
    to_photos, to_class = torch.tensor([[0.9, 0.3]]), torch.tensor([[0.1, 0.5]])
    assert M.identity(to_photos, to_class).item() == pytest.approx(0.75)


def test_a_copy_is_found_mirrored_and_cut_and_a_new_picture_is_not() -> None:
    random = torch.Generator().manual_seed(0)
    photos = torch.randn(5, 4, 16, 16, generator=random)
    coarse = torch.nn.functional.interpolate(torch.randn(5, 4, 4, 4, generator=random), (16, 16), mode="bilinear")
    photos = 3 * coarse + 0.1 * photos
    cut = torch.nn.functional.interpolate(photos[2:3, :, 2:, 2:], (16, 16), mode="bilinear")
    new = 3 * torch.nn.functional.interpolate(torch.randn(1, 4, 4, 4, generator=random), (16, 16), mode="bilinear")
    drawn = torch.cat([photos[:1], photos[1:2].flip(-1), cut, new])
    assert M.copying(drawn, photos).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert M.copying(drawn, photos[:1]).tolist() == [0.0] * 4  # of a single photo nothing can be said
    ten_times = torch.cat([photos[:1]] * 10 + [photos[1:]])
    assert M.copying(drawn[:1], ten_times).tolist() == [1.0]  # the second nearest is another picture, not another copy


def test_vendi_counts_different_pictures() -> None:
    alike, apart = torch.tensor([[1.0, 0.0]] * 4), torch.eye(4)
    assert M.vendi((alike,)).item() == pytest.approx(1.0, abs=1e-4)
    assert M.vendi((apart,)).item() == pytest.approx(4.0, abs=1e-4)
    pairs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert M.vendi((pairs,)).item() == pytest.approx(2.0, abs=1e-4)
