"""Studies small enough for a test; both read the folders ``images`` and ``scenes`` beside them."""

from __future__ import annotations

_REST = """
[pretrain]
images = "images"
image_size = 32
steps = 4
batch_size = 8
checkpoint_every = 2
architecture = "vit_tiny_patch16_224"
options = { patch_size = 8, embed_dim = 24, depth = 2, num_heads = 3 }

[score]
images = "images"
images_count = 32
settings = { global_clusters = 6, lidar_images = 0 }

[[probe]]
dataset = "scenes"
root = "scenes"
image_size = 32
seeds = [0, 1]
"""
ONE_RUN = f"""
[study]
methods = ["simsiam"]

[[arm]]
name = "plain"
{_REST}"""
EIGHT_RUNS = f"""
[study]
methods = ["simsiam", "dino"]
seeds = [0, 1]

[[arm]]
name = "plain"

[[arm]]
name = "dse"
regularizer = "dse"
beta = 0.01

[method.dino]
set = ["local_count=0"]
{_REST}
[[probe]]
dataset = "scenes"
root = "scenes"
image_size = 32
labels = 8
seeds = [0]
"""
