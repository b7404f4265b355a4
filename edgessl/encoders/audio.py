"""wav2vec 2.0, HuBERT, WavLM and data2vec-audio: a waveform in, one vector out.

The library's own ``forward`` takes padded waveforms for what they are only where the feature
encoder normalises by layer; its group norm, and data2vec's stack of positional convolutions, see
the padding. Here the same modules are walked with the padding kept out of each of them, so that a
waveform's vector does not depend on what it is batched with: it is the library's vector of that
waveform alone, without a mask.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch

from edgessl import audio_config
from edgessl.encoder import Encoder
from edgessl.encoders import checkpoint
from edgessl.encoders.families import Family
from edgessl.encoders.head import Head, HeadPlan
from edgessl.encoders.options import LoadOptions, output_specs
from edgessl.errors import BundleError, CheckpointError, RecipeError, Unsupported
from edgessl.spec import AudioSpec, EncoderSpec, Provenance, TensorSpec

MAX_SECONDS = 30  # where nobody says: none of these families has a position table that ends
POOLINGS = ("mean", "max", "none")
_CONFIG = audio_config.PREPROCESSOR_CONFIG


class AudioEncoder(torch.nn.Module):
    """``input_values``, ``attention_mask`` -> vector and/or features, a frame every 20 ms.

    Both are ``(batch, samples)``; the mask is 1 for real samples, and padding follows them.
    """

    def __init__(self, backbone: Any, head: Head, spec: AudioSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.spec = spec
        self.gated_bias = backbone.config.model_type == "wavlm"
        self.norm_last = bool(getattr(backbone.config, "do_stable_layer_norm", False))

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        dtype = self.backbone.encoder.layer_norm.weight.dtype
        lengths = attention_mask.sum(dim=1)
        hidden = self._convolve(input_values.to(dtype), lengths).transpose(1, 2)
        real = _real(hidden.shape[1], self.spec.frames(lengths))
        hidden = self.backbone.feature_projection(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        hidden = self._encode(hidden * real.unsqueeze(-1).to(dtype), real)
        outputs: tuple[torch.Tensor, ...] = self.head(hidden, real)
        return outputs

    def _convolve(self, waveform: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The feature encoder: ``(batch, samples)`` -> ``(batch, channels, frames)``."""
        hidden = waveform.unsqueeze(1)
        for layer, (kernel, stride) in zip(
            self.backbone.feature_extractor.conv_layers, self.spec.convolutions, strict=True
        ):
            lengths = (lengths - kernel) // stride + 1
            if isinstance(getattr(layer, "layer_norm", None), torch.nn.GroupNorm):
                hidden = layer.conv(hidden)
                hidden = layer.activation(_norm_over_time(hidden, lengths, layer.layer_norm))
            else:
                hidden = layer(hidden)
        return hidden

    def _encode(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The transformer; *hidden* is 0 in its padding."""
        encoder = self.backbone.encoder
        hidden = hidden + self._positions(hidden, real)
        if not self.norm_last:
            hidden = encoder.layer_norm(hidden)
        mask = (1 - real[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        bias = None
        for layer in encoder.layers:
            if self.gated_bias:
                hidden, bias = layer(hidden, attention_mask=mask, position_bias=bias)
            else:
                hidden = layer(hidden, attention_mask=mask)
        return encoder.layer_norm(hidden) if self.norm_last else hidden

    def _positions(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The convolutional position embedding, for which padding is what lies beyond the end."""
        embed = self.backbone.encoder.pos_conv_embed
        keep = real.unsqueeze(1).to(hidden.dtype)
        hidden = hidden.transpose(1, 2)
        if hasattr(embed, "layers"):  # data2vec: several, with a norm after each
            for layer in embed.layers:
                hidden = layer(hidden) * keep
        else:
            if getattr(embed, "batch_norm", None) is not None:
                hidden = embed.batch_norm(hidden) * keep
            hidden = embed.activation(embed.padding(embed.conv(hidden)))
        return hidden.transpose(1, 2)


def load(
    directory: Path,
    config: dict[str, Any],
    family: Family,
    options: LoadOptions,
    source: Provenance,
) -> Encoder:
    """Load an audio encoder from a Hugging Face directory.

    Raises:
        CheckpointError: weights or preprocessor_config.json are missing or damaged.
        RecipeError: ``max_seconds`` below the shortest input of the model.
        Unsupported: a pooling that audio has not, adapter layers after the encoder, another
            feature extractor.
    """
    from transformers import AutoModel

    pooling = options.pooling or family.pooling
    if pooling not in POOLINGS:
        raise Unsupported(
            f"--pooling {pooling}: {family.model_type} has frames and nothing else. Poolings: "
            f"{', '.join(POOLINGS)}."
        )
    if config.get("add_adapter"):
        raise Unsupported(f"{source.source}: add_adapter, layers that are no part of the encoder.")
    extractor = _extractor(directory)
    weights = checkpoint.find_weights(directory)
    checkpoint.check_weights(weights)
    # It stands for what training masks, which nothing is here.
    backbone: Any = checkpoint.load_module(
        AutoModel, directory, weights, allowed_missing=(r"masked_spec_embed$",)
    )
    spec = _spec(backbone.config, extractor.sampling_rate, options.max_seconds)
    _simplify(backbone)
    plan = HeadPlan(
        pooling, bool(options.normalize), options.features, dimensions=options.dimensions
    )
    module = AudioEncoder(backbone, Head(plan), spec).eval()
    with torch.no_grad():
        example = torch.ones(1, spec.shortest)
        shapes = [output.shape for output in module(example, example.long())]
    axes = ("batch", "samples")
    return Encoder(
        module=module,
        spec=EncoderSpec(
            task="audio",
            family=family.model_type,
            pooling=pooling,
            normalize=bool(options.normalize) and pooling != "none",
            inputs=(
                TensorSpec("input_values", "float32", axes),
                TensorSpec("attention_mask", "int64", axes),
            ),
            outputs=output_specs("audio", pooling, options, shapes, "frames"),
            preprocessing=spec,
        ),
        provenance=replace(source, weights_sha256=checkpoint.sha256(weights)),
        assets={
            _CONFIG: (directory / _CONFIG).read_bytes(),
            "config.json": (directory / "config.json").read_bytes(),
        },
    )


def _extractor(directory: Path) -> audio_config.AudioConfig:
    try:
        return audio_config.read(directory / _CONFIG)
    except BundleError as err:  # it is no bundle yet: the checkpoint's file is what is wrong
        raise CheckpointError(
            f"{directory.name}: {_CONFIG} cannot be read ({err}). It has the sampling rate and "
            "how loudness is normalized. Save it beside the weights with the model's feature "
            "extractor: extractor.save_pretrained(DIRECTORY)."
        ) from err


def _spec(config: Any, rate: int, seconds: int | None) -> AudioSpec:
    convolutions = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
    spec = AudioSpec(rate, (MAX_SECONDS if seconds is None else seconds) * rate, convolutions)
    if spec.max_samples < spec.shortest:
        raise RecipeError(
            f"--max-seconds {seconds}: this model needs at least {spec.shortest} samples at "
            f"{rate} Hz."
        )
    return spec


def _simplify(backbone: Any) -> None:
    """Make constants of what is computed from weights alone, the same at every call."""
    for part in backbone.modules():
        if isinstance(part, torch.nn.Conv1d) and torch.nn.utils.parametrize.is_parametrized(part):
            torch.nn.utils.parametrize.remove_parametrizations(part, "weight")  # weight norm
    if backbone.config.model_type != "wavlm":
        return
    first = backbone.encoder.layers[0].attention
    farthest = int(first.max_distance)  # beyond it every distance has the last bucket
    with torch.no_grad():
        buckets = first._relative_positions_bucket(torch.arange(-farthest, farthest + 1))
        table = first.rel_attn_embed(buckets).T.contiguous()
    first.register_buffer("bias_table", table, persistent=False)
    for layer in backbone.encoder.layers:
        attention = layer.attention
        attention.gru_rel_pos_linear = _summed(attention.gru_rel_pos_linear)
        # A bound method, not a closure: it follows the module when it is copied.
        attention.forward = MethodType(_attend, attention)


def _summed(linear: torch.nn.Linear) -> torch.nn.Linear:
    """WavLM's gates are sums of four outputs each: two outputs, of weights summed before."""
    gates = torch.nn.Linear(linear.in_features, 2)
    with torch.no_grad():
        gates.weight.copy_(linear.weight.view(2, 4, -1).sum(dim=1))
        gates.bias.copy_(linear.bias.view(2, 4).sum(dim=1))
    return gates


def _attend(
    attention: Any,
    hidden: torch.Tensor,
    attention_mask: torch.Tensor,
    position_bias: torch.Tensor | None = None,
    **_unused: Any,
) -> tuple[torch.Tensor, None, torch.Tensor]:
    """WavLM's attention with gated position bias (Chen et al., 2022), written out.

    The library hands everything to torch's function, which warns of that very mixture of masks.
    The bias of each distance comes from a table ``(heads, distances)``: each runtime would compute
    the logarithm that makes buckets of distances in its own way, and one unit in the last place
    moves a distance that lies on a border into another bucket.

    Args:
        hidden: ``(batch, frames, dim)``; ``attention_mask``: additive, ``(batch, 1, 1, frames)``.
        position_bias: ``(1, heads, frames, frames)``, which the first layer makes for all.
    """
    batch, frames, width = hidden.shape
    if position_bias is None:
        place = torch.arange(frames, device=hidden.device)
        farthest = int(attention.max_distance)
        distance = (place.unsqueeze(0) - place.unsqueeze(1)).clamp(-farthest, farthest)
        bias = attention.bias_table.index_select(1, (distance + farthest).flatten())
        position_bias = bias.view(1, attention.num_heads, frames, frames)

    def by_head(values: torch.Tensor) -> torch.Tensor:
        return values.view(batch, frames, attention.num_heads, -1).transpose(1, 2)

    gates = torch.sigmoid(attention.gru_rel_pos_linear(by_head(hidden)))
    gate = gates[..., :1] * (gates[..., 1:] * attention.gru_rel_pos_const - 1.0) + 2.0
    query, key = by_head(attention.q_proj(hidden)), by_head(attention.k_proj(hidden))
    scores = query @ key.transpose(2, 3) * attention.scaling
    # The bracket matters: once anything in the graph is int8, OpenVINO 2026.4 computes
    # (scores + bias) + mask wrongly (cosine 0.96 of the vectors instead of 0.999).
    weights = (scores + (gate * position_bias + attention_mask)).softmax(dim=-1)
    mixed = weights @ by_head(attention.v_proj(hidden))
    result = attention.out_proj(mixed.transpose(1, 2).reshape(batch, frames, width))
    return result, None, position_bias


def _real(frames: int, lengths: torch.Tensor) -> torch.Tensor:
    """``(batch, frames)`` bool: which frames saw real samples only."""
    return torch.arange(frames, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)


def _norm_over_time(
    hidden: torch.Tensor, lengths: torch.Tensor, norm: torch.nn.GroupNorm
) -> torch.Tensor:
    """The group norm of one channel a group, over real frames only.

    Args:
        hidden: ``(batch, channels, frames)``; ``lengths``: real frames, ``(batch,)``.
    """
    keep = _real(hidden.shape[2], lengths).unsqueeze(1)
    count = lengths.view(-1, 1, 1).float()
    # In float32: these are sums over tens of thousands of frames. And the padding is taken out
    # before anything else: where an int8 convolution is followed by the subtraction of its own
    # mean, OpenVINO 2026.4 makes one step of the two and computes something else.
    x = torch.where(keep, hidden.float(), 0.0)
    x = torch.where(keep, x - x.sum(dim=2, keepdim=True) / count, 0.0)
    variance = x.square().sum(dim=2, keepdim=True) / count
    x = (x / (variance + norm.eps).sqrt()).to(hidden.dtype)
    return x * norm.weight.view(1, -1, 1) + norm.bias.view(1, -1, 1)
