"""A monitored Lightning run: ``python examples/lightning_run.py OUTPUT``."""

import sys

import lightning.pytorch as lightning
import timm
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from densescope.features.live import patch_tokens
from densescope.monitoring import DenseMonitor
from densescope.monitoring.lightning import DenseCallback
from densescope.numerics.regularizer import DenseStructureLoss

SIZE = 32


def network() -> nn.Module:
    shape = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return timm.create_model("vit_small_patch16_224", num_classes=0, **shape)


class Distillation(lightning.LightningModule):
    """A student follows its own moving average on noisy images."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = network(), network().requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        self.dense = DenseStructureLoss(beta=1e-3)

    def training_step(self, batch, index):
        images = batch[0].float() / 255 - 0.5
        tokens = patch_tokens(self.student, images + 0.1 * torch.randn_like(images))
        targets = patch_tokens(self.teacher, images)
        return nn.functional.mse_loss(tokens, targets) + self.dense(tokens)  # the regularizer

    def on_train_batch_end(self, outputs, batch, index):
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast.detach(), 0.01)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.student.parameters(), lr=1e-3)


def main(output: str = "lightning_run") -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (192, 3, 4, 4), dtype=torch.uint8, generator=generator)
    images = nn.functional.interpolate(images.float(), SIZE, mode="bicubic").clamp(0, 255).byte()
    best = ModelCheckpoint(f"{output}/best", monitor="densescope/dse", mode="max", save_top_k=1)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[DenseCallback(DenseMonitor(images[128:], output=output)), best],  # the monitor
    )
    trainer.fit(Distillation(), DataLoader(TensorDataset(images[:128]), batch_size=16))
    print(f"best: {best.best_model_path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
