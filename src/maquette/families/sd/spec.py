"""Facts about Stable Diffusion 1 and 2, and the groups of layers that can be trained in their UNet."""

from __future__ import annotations

from ..base import FamilySpec

SD1 = FamilySpec("sd1", "sd_v1", "stable-diffusion-v1", native_size=512, latent_factor=8, text_parts=("te",))
SD2 = FamilySpec("sd2", "sd_v2", "stable-diffusion-v2-512", native_size=512, latent_factor=8, text_parts=("te",))
SD2_V = FamilySpec("sd2", "sd_v2_v", "stable-diffusion-v2-768-v", native_size=768, latent_factor=8, text_parts=("te",))

# Group -> patterns that match the end of a UNet module's path. "attention" is all that Kohya's trainer adapts in an
# attention block apart from its feed-forward part: both attentions and the block's own projections.
TARGETS: dict[str, tuple[str, ...]] = {
    "attention": (r"attn[12]\.to_(q|k|v|out\.0)", r"attentions\.\d+\.proj_(in|out)"),
    "self_attention": (r"attn1\.to_(q|k|v|out\.0)",),
    "cross_attention": (r"attn2\.to_(q|k|v|out\.0)",),
    "feed_forward": (r"ff\.net\.(0\.proj|2)",),
    "conv": (r"resnets\.\d+\.(conv1|conv2|conv_shortcut|time_emb_proj)", r"(down|up)samplers\.0\.conv"),
}
# The same for text encoders; a trainer adapts either all of these or none.
TEXT_TARGETS = (r"self_attn\.(q|k|v|out)_proj", r"mlp\.fc[12]")
