"""Fine-tuning steps of a U-Net of Stable Diffusion 1.5's size, by LoRA and in full: images a second, and memory.

Weights are random, since speed does not depend on them; the classes are diffusers' own. Run by hand on a GPU::

    python -m benchmarks.stable_size --method lora
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from benchmarks.measuring import now, write_result

SIZE_OF_SD15: dict[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}
SMALL: dict[str, Any] = {
    "sample_size": 16,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def network(method: str, sizes: dict[str, Any], device: str) -> Any:
    """The network with what a method trains."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**sizes)
    if method == "lora":
        from peft import LoraConfig

        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=ATTENTION))
    return unet.to(device, memory_format=torch.channels_last).train()


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the script without a GPU")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = SMALL if options.small else SIZE_OF_SD15
    unet = network(options.method, sizes, device)
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    side, width = sizes["sample_size"], sizes["cross_attention_dim"]
    latents = torch.randn(options.batch_size, 4, side, side, device=device).contiguous(
        memory_format=torch.channels_last
    )
    text = torch.randn(options.batch_size, 77, width, device=device)

    def step() -> None:
        times = torch.randint(0, 1000, (options.batch_size,), device=device)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = (unet(latents, times, text).sample - latents).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    began = now()
    for _ in range(options.steps):
        step()
    spent = now() - began
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    result = {
        "method": options.method,
        "weights": sum(parameter.numel() for parameter in unet.parameters()),
        "trained": sum(parameter.numel() for parameter in trained),
        "batch_size": options.batch_size,
        "images_per_s": options.batch_size * options.steps / spent,
        "peak_memory_gib": peak,
        "started": time.strftime("%Y-%m-%d"),
    }
    if options.small:
        print(result)
        return
    print(write_result(f"stable_size_{options.method}", result))


if __name__ == "__main__":
    main()
