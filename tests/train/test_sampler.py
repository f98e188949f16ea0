from itertools import islice

import pytest
import torch

from posegrad.data import Augmentation, CropDataset
from posegrad.train import DataConfig, open_source
from posegrad.train.feed import Feed, choose_workers
from posegrad.train.sampler import Batches


def take(count: int, *args: int, **options: int) -> list[list[tuple[int, int]]]:
    return list(islice(Batches(*args, **options), count))


def test_an_epoch_visits_every_crop_once_in_its_own_order() -> None:
    batches = take(6, 12, 4, seed=3)
    epochs = [[index for batch in batches[k : k + 3] for _, index in batch] for k in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]
    assert [epoch for batch in batches for epoch, _ in batch] == [0] * 12 + [1] * 12
    assert take(6, 12, 4, seed=3) == batches
    assert take(6, 12, 4, seed=4) != batches


def test_the_rest_of_an_epoch_is_left_out_and_few_crops_make_a_whole_batch() -> None:
    assert [len(batch) for batch in take(5, 11, 4, seed=0)] == [4] * 5
    assert [sorted(batch) for batch in take(2, 3, 32, seed=0)] == [[(e, i) for i in range(3)] for e in (0, 1)]


@pytest.mark.parametrize("first", [1, 3, 7])
def test_a_run_can_start_at_any_batch(first: int) -> None:
    assert take(5, 14, 4, seed=5, first=first) == take(first + 5, 14, 4, seed=5)[first:]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_divide_every_batch(world: int) -> None:
    whole = take(7, 17, 5, seed=1)
    shares = [take(7, 17, 5, seed=1, rank=rank, world=world) for rank in range(world)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert sorted(place for part in parts for place in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("extra", "share", "further"), [(5, 0.5, 2), (20, 0.25, 1), (3, 0.9, 3), (9, 0.01, 1)]
)
def test_extra_crops_have_their_share_and_passes_of_their_own(extra: int, share: float, further: int) -> None:
    batches = take(60, 7, 4, seed=1, extra=extra, extra_share=share)
    assert take(20, 7, 4, seed=1, extra=extra, extra_share=share, first=40) == batches[40:]
    for own, indices, size in ((True, range(7), 4 - further), (False, range(7, 7 + extra), further)):
        places = [[p for p in batch if (p[1] < 7) == own] for batch in batches]
        assert {len(batch) for batch in places} == {size}
        per_pass = len(indices) // size
        assert [{epoch for epoch, _ in batch} for batch in places] == [{k // per_pass} for k in range(60)]
        for first in range(0, 60 - per_pass, per_pass):
            seen = [index for batch in places[first : first + per_pass] for _, index in batch]
            assert len(seen) == len(set(seen)) == per_pass * size
        assert {index for batch in places for _, index in batch} == set(indices)
    ranks = [take(60, 7, 4, seed=1, extra=extra, extra_share=share, rank=r, world=2) for r in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in batches]


def test_workers_give_every_crop_the_changes_of_its_epoch(dataset) -> None:
    source = open_source(DataConfig(root=dataset, keypoints=8))
    crops = CropDataset(source.train[:6], size=32, augmentation=Augmentation(), seed=2)
    batches = Batches(6, 3, seed=2)
    feed = Feed([crops], batches, workers=1, device=torch.device("cpu"), skip_bad=False)
    for places in islice(batches, 4):
        for (epoch, index), image in zip(places, feed.next().crops["image"], strict=True):
            crops.set_epoch(epoch)
            assert torch.equal(crops[index]["image"], image)


@pytest.mark.parametrize(
    ("data", "threads", "workers"),
    [
        (DataConfig(), 2, 0),
        (DataConfig(novel_views=0.5), 1, 0),
        (DataConfig(novel_views=0.5), 2, 1),
        (DataConfig(novel_views=0.5), 8, 2),
        (DataConfig(workers=3), 1, 3),
    ],
)
def test_workers_are_for_crops_that_cost_much(
    data: DataConfig, threads: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert choose_workers(data, torch.device("cpu"), 1) == workers
