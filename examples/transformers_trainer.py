"""A monitored run of Transformers' Trainer: ``python examples/transformers_trainer.py OUTPUT``."""

import sys

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForMaskedImageModeling
from transformers.utils.logging import disable_progress_bar

from densescope.features.live import patch_tokens
from densescope.monitoring import DenseMonitor
from densescope.monitoring.huggingface import DenseTrainerCallback
from densescope.numerics.regularizer import DenseStructureLoss

SIZE, CELLS = 32, 16
SHAPE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}


class Regularized(Trainer):
    """The Trainer with one more term in its loss."""

    dense = DenseStructureLoss(beta=1e-3)

    def compute_loss(self, model, inputs, return_outputs=False, **more):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **more)
        if model.training:
            loss = loss + self.dense(patch_tokens(model, inputs["pixel_values"]))  # the regularizer
        return (loss, outputs) if return_outputs else loss


def main(output: str = "transformers_trainer") -> None:
    disable_progress_bar()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (192, 3, 4, 4), dtype=torch.uint8, generator=generator)
    images = nn.functional.interpolate(images.float(), SIZE, mode="bicubic").clamp(0, 255).byte()
    masks = torch.rand(128, CELLS, generator=generator) < 0.5
    rows = [
        {"pixel_values": image.float() / 255 - 0.5, "bool_masked_pos": mask}
        for image, mask in zip(images[:128], masks, strict=True)
    ]
    monitor = DenseMonitor(images[128:], output=output, mean=[0.5] * 3, std=[1.0] * 3)
    arguments = TrainingArguments(
        output_dir=f"{output}/trainer",
        max_steps=24,
        per_device_train_batch_size=16,
        eval_strategy="steps",
        eval_steps=8,
        save_steps=8,
        metric_for_best_model="densescope/dse",
        greater_is_better=True,
        prediction_loss_only=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    config = ViTConfig(**SHAPE, intermediate_size=96, image_size=SIZE, patch_size=8)
    config.encoder_stride = 8
    trainer = Regularized(
        ViTForMaskedImageModeling(config),
        arguments,
        train_dataset=rows,
        eval_dataset=rows[:16],
        callbacks=[DenseTrainerCallback(monitor)],  # the monitor
    )
    trainer.train()
    print(f"best: {trainer.state.best_model_checkpoint}")


if __name__ == "__main__":
    main(*sys.argv[1:])
