"""A bare DINO-like loop, watched and regularized: ``python examples/dino_loop.py OUTPUT``."""

import sys

import timm
import torch
from torch import nn

from densescope import DenseMonitor, DenseStructureLoss
from densescope.features.live import tokens_of

STEPS, BATCH, SIZE = 40, 16, 32


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shape = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
        self.backbone = timm.create_model("vit_small_patch16_224", num_classes=0, **shape)
        self.head = nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 128))

    def forward(self, images):
        tokens = self.backbone.forward_features(images)
        return self.head(tokens[:, 0]), tokens_of(self.backbone, tokens)


def view(images, generator):
    """Noise, in the place of real augmentations."""
    return images + 0.1 * torch.randn(images.shape, generator=generator)


def main(output: str = "dino_loop") -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (192, 3, 4, 4), dtype=torch.uint8, generator=generator)
    images = nn.functional.interpolate(images.float(), SIZE, mode="bicubic").clamp(0, 255).byte()
    student, teacher = Network(), Network().requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    optimizer, center = torch.optim.AdamW(student.parameters(), lr=1e-3), torch.zeros(128)
    dense = DenseStructureLoss(beta=1e-3, images=8)
    monitor = DenseMonitor(images[128:], output=output, every=10)
    for step in range(1, STEPS + 1):
        batch = images[torch.randint(0, 128, (BATCH,), generator=generator)].float() / 255 - 0.5
        (first, tokens), (second, _) = (student(view(batch, generator)) for _ in range(2))
        teacher_output = torch.cat([teacher(view(batch, generator))[0] for _ in range(2)])
        targets = ((teacher_output - center) / 0.04).softmax(-1)
        loss = nn.functional.cross_entropy(torch.cat([first, second]) / 0.1, targets)
        loss = loss + dense(tokens)  # the regularizer
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        center = 0.9 * center + 0.1 * teacher_output.mean(0)
        for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast.detach(), 0.01)
        monitor.observe(teacher, step=step)  # the monitor
    print(f"next: densescope select {output}")


if __name__ == "__main__":
    main(*sys.argv[1:])
