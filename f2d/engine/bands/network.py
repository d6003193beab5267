"""The engine's network over bands of rows: the same function, with a working memory that does not grow with the image.

The network runs layer by layer over the whole image, and each layer band by band. Statistics of the whole image
(moments, means, attention's matrix) are summed while the previous layer is computed, so they are exact; only the
normalisation of the few rows that two bands share is computed twice.

The alternative, overlapping tiles that reuse statistics taken elsewhere, was measured on f2d-lite and photographs of
0.8 to 3 megapixels. These are PSNRs against the whole image, from the statistics' error alone: 40 to 58 dB with those
of a copy at half size and 28 to 41 dB at a quarter; 19 to 39 dB with those pooled from crops that cover a quarter of
the image; 37 to 48 dB with the copy corrected by crops. Repeated passes over all tiles that correct the moments diverge
(38, 30, 27, 25 dB), since a change in one layer changes the moments of the forty layers after it. Bands reach 84 dB
(bf16) and 156 dB (float32) on 3 megapixels (bench.tiling).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.engine.backbone import Constants, FastAttention, FastBlock
from f2d.engine.control import Adjust, adjusted, scaled
from f2d.engine.engine import Engine
from f2d.engine.layers import Conv, Norm, leaky
from f2d.engine.skipping import experts_to_run
from f2d_kernels import expert_head

from .layers import Bands, conv_rows, doubled, padded, unshuffled
from .stored import Field, Joined, Rows, View, group_moments, mapped


class BandedNetwork:
    """``v(x_t, y, t)`` of an engine for one image, in bands; image provides rows [1, 3, h, W] in [-1, 1].

    padded_image, enhanced: rows of the enhanced image, padded and in its own size. maps: a field [1, K, h, w], or None.
    weights [1, K]: the presences. gates [1, K]: those of the first call.
    """

    def __init__(
        self,
        engine: Engine,
        bands: Bands,
        image: Rows,
        strength: tuple[float, ...] | None = None,
        skipping: bool = True,
        adjust: Adjust | None = None,
    ):
        self.engine, self.bands, self.strength, self.skipping = engine, bands, strength, skipping
        self.adjust = adjust
        self.height, self.width = image.height, image.width
        self.gates: Any = None
        self.padded_image: Rows = padded(image, engine.config.stride)
        if engine.enhancer is not None:
            self.padded_image = self._enhanced(self.padded_image)
        rows, width = self.padded_image, image.width
        self.enhanced: Rows = View(image.height, width, lambda top, bottom: rows.read(top, bottom)[..., :width])
        self._parse()

    def velocity(self, state: Rows, t: int) -> Rows:
        """Return rows of v in the padded size. state: x_t in the image's size, `enhanced` itself at the start."""
        engine, image, patch = self.engine, self.padded_image, self.engine.config.patch
        constants = engine.constants(t)
        larger = (image.height, image.width) != (self.height, self.width)
        repeated = state is self.enhanced and not (larger and engine.enhancer is not None)
        if not repeated:
            image = Joined(padded(state, engine.config.stride), image)
        shared, features, frequency = self._backbone(unshuffled(image, patch), constants, repeated)
        gates = engine.gate(constants.time, self.weights, self.map_means, frequency)
        gates = adjusted(gates, "gates", self.adjust)
        self.gates = gates if self.gates is None else self.gates
        self._add_experts(features, scaled(gates, self.strength), shared)

        def read(top: int, bottom: int) -> Tensor:  # both multiples of the patch
            total = F.pixel_shuffle(shared.read(top // patch, bottom // patch), patch)
            if engine.config.head != "affine":
                return total
            gain, offset = total.chunk(2, dim=1)
            return torch.addcmul(offset, gain, self.padded_image.read(top, bottom))

        return View(self.padded_image.height, self.padded_image.width, read)

    def _normed(self, norm: Norm, x: Field | Joined, film: tuple[Tensor, Tensor] | None = None) -> Rows:
        moments = group_moments(x.parts, norm.groups, norm.eps, norm.weight.dtype)
        return mapped(x, lambda rows: norm.given(rows, moments, film))

    def _residual(self, conv: Conv, h: Rows, x: Rows, skip: Conv | None = None) -> Field:
        """``conv(h) + skip(x)``, where skip is the identity without a skip convolution."""

        def rows(top: int, bottom: int) -> Tensor:
            residual = x.read(top, bottom)
            return conv_rows(conv, h, top, bottom).add_(residual if skip is None else skip(residual))

        return self.bands.keep(x.height, x.width, rows)

    def _enhanced(self, image: Rows) -> Field:
        enhancer, bands = self.engine.enhancer, self.bands
        assert enhancer is not None
        patch = enhancer.patch
        gate = enhancer.gate_of(bands.mean(image).to(self.engine.wide))
        gate = adjusted(gate, "enhancer gate", self.adjust)
        h = bands.convolve(enhancer.conv_in, unshuffled(image, patch))
        for first, second in enhancer.blocks:
            h = self._residual(second, bands.convolve(first, h), h)
        h = bands.convolve(enhancer.tail[0], h)

        field = bands.scratch.field(image.height, image.width)
        for top, bottom in bands.of(h.height, h.width):
            x = image.read(top * patch, bottom * patch)
            delta = F.pixel_shuffle(conv_rows(enhancer.tail[1], h, top, bottom), patch).to(x.dtype).tanh_()
            field.append(torch.addcmul(x, gate, delta).clamp_(-1, 1))
        return field

    def _convolved(self, convs: Any, h: Any) -> Any:
        for conv in convs:
            h = self.bands.convolve(conv, h)
        return h

    def _parse(self) -> None:
        parser, wide = self.engine.parser, self.engine.wide
        image, light = unshuffled(self.padded_image, self.engine.config.patch), self.engine.experts.light
        detail = self._convolved(parser.detail, image) if light else None
        encoded = self._convolved(parser.context, detail) if light else self._convolved(parser.encoder, image)
        weights = parser.weight_mlp(encoded.moments.mean[None].to(wide)).sigmoid()
        self.weights = adjusted(weights, "presence", self.adjust)
        self.maps: Field | None = None
        self._highest: Tensor | None = None
        self.map_means = torch.ones_like(self.weights)
        if parser.decoder is not None:
            self._decode(self._merged(detail, encoded) if light else encoded)

    def _merged(self, detail: Field, context: Field) -> Rows:
        """``leaky(detail + up(merge(context)))`` of a light parser."""
        parser = self.engine.parser
        up: Rows = self.bands.convolve(parser.merge, context)
        for _ in range(parser.doublings):
            up = doubled(up)
        return self.bands.keep(
            detail.height, detail.width, lambda top, bottom: leaky(detail.read(top, bottom) + up.read(top, bottom))
        )

    def _decode(self, h: Any) -> None:
        *inner, last = self.engine.parser.decoder
        highest = []

        def to_maps(rows: Tensor) -> Tensor:
            maps = rows.to(self.engine.wide).sigmoid_()
            highest.append(maps.amax(dim=(2, 3), keepdim=True))
            return maps

        self.maps = self.bands.convolve(last, self._convolved(inner, h), to_maps)
        self.map_means = self.maps.moments.mean[None].to(self.engine.wide)
        self._highest = torch.stack(highest).amax(dim=0)

    def _backbone(self, x: Rows, constants: Constants, repeated: bool) -> tuple[Field, Field | Joined, Tensor]:
        """Return (shared head in float32 or wider, experts' input, frequency embedding)."""
        net, bands = self.engine.backbone, self.bands
        h: Any = bands.convolve(net.conv_in_repeated if repeated else net.conv_in, x)
        skips = []
        for level, blocks in enumerate(net.down_blocks):
            for block in blocks:
                h = self._block(block, h, constants)
            skips.append(h)
            if level < len(net.downsamples):
                h = bands.convolve(net.downsamples[level], h)
        for block in net.mid_blocks:
            h = self._block(block, h, constants)
        if not net.light:
            h = self._attention(net.mid_attention, h)
        frequency = net.frequency_mlp(self._high_frequencies(h).to(self.engine.wide))
        for level, blocks in enumerate(net.up_blocks):
            h = self._upward(level, h, skips.pop())
            for block in blocks:
                h = self._block(block, h, constants)
        wide = self.engine.wide
        return bands.convolve(net.conv_out, self._normed(net.norm_out, h), lambda rows: rows.to(wide)), h, frequency

    def _upward(self, level: int, h: Field, skip: Field) -> Field | Joined:
        net = self.engine.backbone
        if net.light:
            return h if level == 0 else self._residual(net.upsamples[level - 1], h, skip)
        if level > 0:
            h = self.bands.convolve(net.upsamples[level - 1], doubled(h))
        return Joined(h, skip)

    def _block(self, block: FastBlock, x: Field | Joined, constants: Constants) -> Field:
        h: Rows = self.bands.convolve(block.conv1, self._normed(block.norm1, x))
        h = self._normed(block.norm2, h, constants.film[block.name])
        return self._residual(block.conv2, h, x, block.skip)

    def _attention(self, attention: FastAttention, x: Field) -> Field:
        bands, wide = self.bands, attention.temperature.dtype
        qkv = bands.convolve(attention.qkv_depthwise, bands.convolve(attention.qkv, self._normed(attention.norm1, x)))

        def heads(top: int, bottom: int) -> Tensor:
            rows = qkv.read(top, bottom)
            return rows.reshape(1, 3, attention.heads, rows.shape[1] // (3 * attention.heads), -1)

        products: Any = 0
        norms_q: Any = 0
        norms_k: Any = 0
        for top, bottom in bands.of(x.height, x.width):
            q, k, _ = heads(top, bottom).to(wide).unbind(1)
            products = products + (q @ k.transpose(-2, -1)).double()
            norms_q, norms_k = (
                total + side.square().sum(dim=-1).double() for total, side in ((norms_q, q), (norms_k, k))
            )
        # normalize() divides by max(norm, 1e-12)
        norms_q, norms_k = (norm.sqrt().clamp_min(1e-12) for norm in (norms_q, norms_k))
        cosines = (products / norms_q[..., :, None] / norms_k[..., None, :]).to(wide)
        matrix = (attention.temperature * cosines).softmax(dim=-1)

        def mix(top: int, bottom: int) -> Tensor:
            v, residual = heads(top, bottom)[:, 2], x.read(top, bottom)
            mixed = (matrix.to(v.dtype) @ v).reshape(residual.shape)
            return attention.proj(mixed.contiguous(memory_format=torch.channels_last), residual)

        x_mixed = bands.keep(x.height, x.width, mix)
        h = self._normed(attention.norm2, x_mixed)

        def feed_forward(top: int, bottom: int) -> Tensor:
            inner = F.gelu(attention.ffn[0](h.read(top, bottom)))
            return attention.ffn[1](inner, x_mixed.read(top, bottom))

        return bands.keep(x.height, x.width, feed_forward)

    def _high_frequencies(self, x: Field) -> Tensor:
        """[1, C]: mean of GELU(Laplacian)."""
        laplacian = self.engine.backbone.laplacian

        def rows(top: int, bottom: int) -> Tensor:
            first, last = max(top - 1, 0), min(bottom + 1, x.height)
            band = F.pad(x.read(first, last), (0, 0, first - top + 1, bottom + 1 - last))
            return F.gelu(F.conv2d(band, laplacian, padding=(0, 1), groups=laplacian.shape[0]))

        return self.bands.mean(x, rows)

    def _add_experts(self, features: Rows, gates: Tensor, base: Field) -> None:
        """Add the experts' corrections to base."""
        engine, bands = self.engine, self.bands
        wanted = [k for k in range(len(engine.config.factors)) if self.strength is None or self.strength[k] > 0]
        if self.skipping:
            affine, pixels = engine.config.head == "affine", features.height * features.width
            visible = experts_to_run(engine.experts.bounds, gates, self._highest, pixels, affine)
            wanted = [k for k in wanted if k in visible]
        x = mapped(features, engine.experts.prepared)
        for k in wanted:
            expert: Any = engine.experts.experts[k]
            h: Any = x
            for conv, norm in expert.layers:
                h = self._normed(norm, bands.convolve(conv, h))
            scale = expert.scales(bands.mean(h).to(engine.wide))[:, None]
            weight, bias, gate = engine.experts.weight[k : k + 1], engine.experts.bias[k : k + 1], gates[:, k : k + 1]
            for top, bottom in bands.of(h.height, h.width):
                maps = None if self.maps is None else self.maps.read(top, bottom)[:, k : k + 1]
                total = expert_head([h.read(top, bottom)], weight, bias, scale, gate, maps, base.read(top, bottom))
                base.write(top, total)
