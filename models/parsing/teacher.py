"""The portrait parser's photo teacher, which it starts from: BiSeNetV2 trained on CelebAMask-HQ.

It is right on photos but wrong on strongly stylised paintings, so it only labels photos, never art.
"""

from collections.abc import Mapping

from torch import Tensor

from models.parsing.portrait import WORKING_SIZE, PortraitParser

_SEMANTIC, _DETAIL = "semantic_branch", "detail_branch"
_CONTEXT = f"{_SEMANTIC}/stage_5/ce_block_3_repeat_1/context_embedding_block"
_AGGREGATION = "aggregation_branch/guided_aggregation_block"
_KERNELS = ("conv/Conv2D_weights", "depthwise_conv_output_weights", "W")
# A gather-and-expansion layer's convolutions and the teacher's, first if it halves the sides, then if it keeps them.
_HALVING = {
    "first": "3x3_conv_block",
    "expand": "depthwise_conv_block_1",
    "deepen": "depthwise_conv_block_2",
    "project": "1x1_conv_block",
    "shortcut.0": "input_project_dw_conv_block",
    "shortcut.1": "input_project_1x1_conv_block",
}
_KEEPING = {"first": "3x3_conv_block", "expand": "depthwise_conv_block", "project": "1x1_conv_block"}


def start_from(teacher: Mapping[str, Tensor], size: int = WORKING_SIZE) -> PortraitParser:
    """The teacher as a parser that works at `size` px. Raises: ValueError when a kernel is missing.

    `teacher` holds the constants of the converted tensorflow.js graph by node name, kernels in its layout (HWIO).
    """
    parser = PortraitParser(size)
    state: dict[str, Tensor] = {}
    for module, place in _places().items():
        names = [name for name in (f"BiseNetV2/{place}/{kernel}" for kernel in _KERNELS) if name in teacher]
        if not names:
            raise ValueError(f"BiSeNetV2 tensors lack the kernel of '{place}': convert the weights again")
        name, kernel = names[0], teacher[names[0]]
        state[f"{module}.convolution.weight"] = (
            kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if "depthwise" in name else kernel.permute(3, 2, 0, 1)
        )
        if not name.endswith("/W"):
            state[f"{module}.convolution.bias"] = teacher[name.replace("_weights", "_bn_offset")]
    mean = f"BiseNetV2/{_CONTEXT}/bn/FusedBatchNormV3"
    state["semantic.context.scale"] = teacher[f"{mean}/Scaled"].flatten()
    state["semantic.context.offset"] = teacher[f"{mean}/Offset"].flatten()
    parser.load_state_dict(state)
    return parser


def _places() -> dict[str, str]:
    """The parser's convolution -> the teacher's block."""
    stem = f"{_SEMANTIC}/stage_1/se_block_1_repeat_1/stem_block"
    names = {
        "semantic.stem.first": f"{stem}/conv_block_1",
        "semantic.stem.squeeze": f"{stem}/downsample_branch_left/1x1_conv_block",
        "semantic.stem.left": f"{stem}/downsample_branch_left/3x3_conv_block",
        "semantic.stem.last": f"{stem}/final_conv_block",
        "semantic.context.mix": f"{_CONTEXT}/conv_block_1",
        "semantic.context.last": f"{_CONTEXT}/final_conv_block",
        "aggregation.detail.0": f"{_AGGREGATION}/detail_branch/3x3_dw_conv_block",
        "aggregation.detail.1": f"{_AGGREGATION}/detail_branch/1x1_conv_block",
        "aggregation.shrink": f"{_AGGREGATION}/detail_branch/3x3_conv_block",
        "aggregation.semantic.0": f"{_AGGREGATION}/semantic_branch/3x3_dw_conv_block",
        "aggregation.semantic.1": f"{_AGGREGATION}/semantic_branch/1x1_conv_block",
        "aggregation.enlarge": f"{_AGGREGATION}/semantic_branch/3x3_conv_block",
        "aggregation.last": f"{_AGGREGATION}/aggregation_features/aggregation_feature_output",
        "head.0": "logits/3x3_conv_block",
        "head.2": "logits/1x1_conv_block",
    }
    repeats = ("1_repeat_1", "2_repeat_1", "2_repeat_2")
    layers = [f"{stage}/conv_block_{i}" for stage in (1, 2, 3) for i in repeats[: 2 if stage == 1 else 3]]
    names |= {f"detail.{2 * i}": f"{_DETAIL}/stage_{layer}/3x3_conv" for i, layer in enumerate(layers)}
    for stage, others in ((3, 1), (4, 1), (5, 3)):
        blocks = [("1_repeat_1", "two", _HALVING), *((f"2_repeat_{i + 1}", "one", _KEEPING) for i in range(others))]
        for i, (block, stride, parts) in enumerate(blocks):
            place = f"{_SEMANTIC}/stage_{stage}/ge_block_{block}/gather_expansion_block/stride_equal_{stride}_module"
            names |= {f"semantic.stage{stage}.{i}.{layer}": f"{place}/{name}" for layer, name in parts.items()}
    return names
