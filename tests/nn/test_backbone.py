from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from posegrad.nn import KeypointPoseNet, create_backbone, load_backbone_weights
from posegrad.nn.backbone import Backbone


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_any_family_gives_maps_of_the_promised_shapes(name: str) -> None:
    backbone = create_backbone(name, 64).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(2, 3, 64, 64))
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape == (2, channels, 64 // stride, 64 // stride)
    assert min(backbone.strides) >= 4


class OneMap(torch.nn.Module):
    """Answers (b, 8, 8, 8) whatever the layout: its shape does not tell where the channels are."""

    def __init__(self, output_fmt: str) -> None:
        super().__init__()
        self.output_fmt = output_fmt
        self.feature_info = timm.models.FeatureInfo([{"num_chs": 8, "reduction": 4, "module": ""}], (0,))
        self.answer = torch.arange(512.0).reshape(1, 8, 8, 8)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.answer.expand(len(image), -1, -1, -1)]


def test_channels_last_is_what_the_model_declares_not_a_guess_from_the_shape() -> None:
    for output_fmt, order in (("NHWC", (0, 3, 1, 2)), ("NCHW", (0, 1, 2, 3))):
        model = OneMap(output_fmt)
        (found,) = Backbone(model, "one")(torch.zeros(1, 3, 32, 32))
        assert torch.equal(found, model.answer.permute(order))


def test_a_family_that_answers_channels_last() -> None:
    backbone = create_backbone("swin_tiny_patch4_window7_224", 64).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == backbone.channels


def test_hrnet_keeps_its_narrow_branches() -> None:
    backbone = create_backbone("hrnet_w18_small")
    assert (backbone.channels, backbone.strides) == ([16, 32, 64, 128], [4, 8, 16, 32])


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"hrnet_w18_smal'.*nearest:.*hrnet_w18_small"):
        create_backbone("hrnet_w18_smal")
    with pytest.raises(ValueError, match="no model named"):
        create_backbone("~")


def same(a: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = a.state_dict()
    return all(torch.equal(own[key], value) for key, value in state.items() if key in own)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_by_name_leave_the_classifier_out(tmp_path: Path, suffix: str) -> None:
    state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        save_file(state, path)
    net = KeypointPoseNet(8, "test_efficientnet", image_size=64)
    assert load_backbone_weights(net, path) == "name"
    assert same(net.backbone.model, state)


def test_weights_by_the_order_of_shapes(tmp_path: Path) -> None:
    state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    renamed = {
        f"layer{i}": v for i, (k, v) in enumerate(state.items()) if not k.endswith("num_batches_tracked")
    }
    torch.save(renamed, tmp_path / "w.pth")
    backbone = create_backbone("test_efficientnet", 64)
    assert load_backbone_weights(backbone, tmp_path / "w.pth") == "order"
    assert same(backbone.model, state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_permuted_tensors_of_equal_shapes_are_refused(tmp_path: Path, suffix: str) -> None:
    # Sorted, as safetensors does: every batch norm becomes bias, running_mean, running_var, weight.
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    renamed = {
        f"m{modules.index(module):03}.{leaf}": value
        for key, value in state.items()
        for module, _, leaf in [key.rpartition(".")]
        if module != "fc" and leaf != "num_batches_tracked"
    }
    renamed = dict(sorted(renamed.items()))
    backbone = create_backbone("test_resnet", 64)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    own = [v.shape for k, v in backbone.model.state_dict().items() if not k.endswith("num_batches_tracked")]
    assert [v.shape for v in renamed.values()] == own
    if suffix == ".pth":
        torch.save(renamed, tmp_path / "w.pth")
    else:
        save_file(renamed, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"neither by name .* nor by"):
        load_backbone_weights(backbone, tmp_path / f"w{suffix}")
    assert same(backbone, before)


def test_a_safetensors_file_is_never_matched_by_order(tmp_path: Path) -> None:
    # Names that say nothing and happen to be sorted: the order is right here, but the format promises none.
    state = create_backbone("test_resnet", 64).model.state_dict()
    values = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    save_file({f"layer{i:03}": v for i, v in enumerate(values)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors does not keep"):
        load_backbone_weights(create_backbone("test_resnet", 64), tmp_path / "w.safetensors")


def test_weights_that_do_not_fit_change_nothing_and_say_so(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("not a state dict")
    (tmp_path / "text.safetensors").write_text("not a state dict")
    torch.save([1, 2], tmp_path / "list.pth")
    backbone = create_backbone("test_efficientnet", 64)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    for name, message in {
        "other.pth": "neither by name",
        "text.pth": "not a file of tensors alone",
        "text.safetensors": "cannot read",
        "list.pth": "no state dict",
        "absent.pth": "no file",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_backbone_weights(backbone, tmp_path / name)
    assert same(backbone, before)


def test_the_order_of_shapes_must_agree_at_every_tensor(tmp_path: Path) -> None:
    state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    values = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    torch.save({f"layer{i}": v for i, v in enumerate(reversed(values))}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="order of shapes"):
        load_backbone_weights(create_backbone("test_efficientnet", 64), tmp_path / "w.pth")
