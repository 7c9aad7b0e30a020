import math

import pytest
import torch
from sklearn.decomposition import PCA

from lecturelib import load_model
from lecturelib.errors import ArgumentError, LayerNameError
from lecturelib.layers import (
    codes,
    first_filters,
    mirror_ranks,
    nearest,
    opponency,
    orientation_energy,
    pca,
    purity,
    smoothness,
    stretched,
    template_scores,
    trust,
    tsne,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_template_demo_of_the_lecture_is_exact():
    filters = torch.diag(torch.tensor([2.0, 2, 2]))[None]
    patches = torch.tensor(
        [
            [[1.0, 1, 1], [1, 1, 1], [1, 1, 1]],
            [[0.0, 0, 0], [0, 0, 0], [3, 3, 3]],
            [[3.0, 0, 0], [0, 3, 0], [0, 0, 3]],
            [[0.0, 0, 0], [1, 2, 1], [3, 1, 1]],
        ]
    )
    assert template_scores(filters, patches).tolist() == [[6, 6, 18, 6]]
    expected = torch.tensor([[1 / 3**0.5, 1 / 3, 1.0, 3 / (3 * 17) ** 0.5]])
    torch.testing.assert_close(template_scores(filters, patches, cosine=True), expected)


def test_template_scores_are_a_convolution():
    filters, patches = random(5, 3, 4, 4), random(7, 3, 4, 4, seed=1)
    expected = torch.conv2d(patches, filters)[:, :, 0, 0].T
    torch.testing.assert_close(template_scores(filters, patches), expected, atol=1e-4, rtol=1e-5)


def test_stretched_ignores_scale_and_offset_and_keeps_the_order_of_colors():
    weights = random(4, 3, 5, 5)
    torch.testing.assert_close(stretched(3 * weights + 1), stretched(weights))
    assert stretched(weights).amin(dim=(1, 2, 3)).eq(0).all() and stretched(weights).amax(dim=(1, 2, 3)).eq(1).all()
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 5
    assert stretched(red)[0, :, 0, 0].tolist() == [1, 0, 0]
    assert stretched(torch.full((1, 3, 2, 2), 7.0)).unique().tolist() == [0.5]


def test_first_filters_are_the_weights_of_the_first_convolution():
    model = load_model("mini_alexnet")
    assert first_filters(model).shape == (64, 3, 11, 11)
    torch.testing.assert_close(first_filters(model), stretched(model.module("conv1").weight.contiguous()))


def test_first_filters_of_a_grey_network_are_refused():
    grey = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    with pytest.raises(LayerNameError, match="three colors"):
        first_filters(load_model(grey))


def test_a_grating_has_all_its_energy_in_one_direction_and_noise_a_quarter():
    rows = torch.arange(11).float()
    grating = torch.cos(2 * math.pi * 3 * rows / 11).expand(1, 3, 11, 11)
    torch.testing.assert_close(orientation_energy(grating), torch.ones(1))
    assert 0.25 < orientation_energy(random(200, 3, 11, 11)).mean() < 0.4


def test_orientation_energy_does_not_depend_on_scale_or_mean():
    weights = random(6, 3, 7, 7)
    torch.testing.assert_close(orientation_energy(2 * weights + 1), orientation_energy(weights), atol=1e-4, rtol=1e-4)


def test_opponency_is_zero_for_grey_and_one_for_opponents():
    grey = random(1, 1, 5, 5).expand(1, 3, 5, 5)
    opponents = torch.cat([grey[:, :1], -grey[:, :1], torch.zeros(1, 1, 5, 5)], dim=1)
    torch.testing.assert_close(opponency(grey), torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(opponency(opponents), torch.ones(1))


def test_smoothness_separates_a_ramp_from_noise_and_a_checkerboard():
    ramp = torch.arange(11.0).expand(1, 1, 11, 11)
    checkerboard = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    assert smoothness(ramp) > 0.8
    assert smoothness(checkerboard.expand(1, 1, 8, 8)) == -1
    assert smoothness(random(100, 3, 11, 11)).mean().abs() < 0.05


def test_codes_are_the_layer_in_front_of_the_classifier_for_every_batch_size():
    model = load_model("mini_alexnet")
    images = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = codes(model, images)
    torch.testing.assert_close(whole, model.activation(images, "relu7"))
    torch.testing.assert_close(codes(model, images, batch=2), whole, atol=1e-5, rtol=1e-5)
    assert codes(model, images, layer="relu5").shape == (5, 128 * 16 * 16 // 4)


def test_nearest_agrees_with_sorted_distances_also_after_a_rotation():
    gallery = random(60, 8)
    expected = torch.cdist(gallery[:9].double(), gallery.double()).argsort(dim=1)[:, :5]
    assert torch.equal(nearest(gallery[:9], gallery, k=5), expected)
    rotation = torch.linalg.qr(random(8, 8, seed=3)).Q
    assert torch.equal(nearest(gallery[:9] @ rotation, gallery @ rotation, k=5), expected)
    assert nearest(gallery, gallery, k=1)[:, 0].tolist() == list(range(60))


@pytest.mark.parametrize("k", [0, -1, 61])
def test_nearest_refuses_impossible_counts(k):
    with pytest.raises(ArgumentError, match=r"Choose 1 \.\.\. 60"):
        nearest(random(3, 2), random(60, 2), k=k)


def test_purity_is_one_for_separate_groups_and_the_share_by_hand_otherwise():
    groups = torch.cat([random(8, 2), random(8, 2) + 100])
    labels = torch.arange(16) // 8
    assert purity(groups, labels) == 1
    line = torch.tensor([[0.0], [1], [2.1], [10]])
    assert purity(line, torch.tensor([0, 0, 1, 1]), k=1) == 0.75  # 0->1, 1->0, 2.1->1 (wrong), 10->2.1


def test_the_mirror_rank_is_one_where_codes_ignore_left_and_right():
    points = random(20, 4)
    assert mirror_ranks(points, points).tolist() == [1] * 20
    line = torch.tensor([[0.0], [1], [3]])
    assert mirror_ranks(line, torch.tensor([[2.0], [1], [3]])).tolist() == [2, 1, 1]


def test_pca_is_that_of_scikit_learn_and_loses_the_dropped_variance():
    points = random(40, 6) * torch.tensor([5.0, 3, 1, 1, 0.5, 0.1])
    projected, share = pca(points)
    reference = PCA().fit(points.double().numpy())
    cosine = torch.nn.functional.cosine_similarity(
        projected.double(), torch.from_numpy(reference.transform(points.double().numpy())[:, :2]), dim=0
    )
    assert (cosine.abs() > 0.999).all()
    lost = (points - points.mean(dim=0)).square().sum() - projected.square().sum()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(points.T.double()))[:-2].sum() * 39
    torch.testing.assert_close(lost.double(), eigenvalues, rtol=1e-3, atol=1e-3)
    assert 0 < share[1] < share[0] < 1


def test_tsne_keeps_three_groups_apart_and_repeats_itself():
    points = torch.cat([random(20, 10, seed=group) + 20 * group for group in range(3)])
    labels = torch.arange(60) // 20
    embedding = tsne(points, perplexity=5)
    assert embedding.shape == (60, 2) and purity(embedding, labels) == 1 and trust(points, embedding) > 0.9
    assert torch.equal(embedding, tsne(points, perplexity=5))


def test_tsne_refuses_a_perplexity_of_more_than_the_points():
    with pytest.raises(ArgumentError, match="perplexity"):
        tsne(random(10, 3), perplexity=10)
