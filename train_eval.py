"""Train the network that a derived cell forms, and report its test error.

CPU, no download     python train_eval.py --config configs/eval/digits.yaml network.genotype=runs/search/digits
one GPU              python train_eval.py --config configs/eval/cifar10.yaml data.root=/data
8 GPUs, one node     torchrun --standalone --nproc_per_node=8 --max-restarts=5 train_eval.py \\
                         --config configs/eval/imagenet_8gpu.yaml data.root=/imagenet
2 nodes of 8 GPUs    torchrun --nnodes=2 --nproc_per_node=8 --max-restarts=5 --rdzv_backend=c10d \\
                         --rdzv_endpoint=HOST:29500 train_eval.py --config configs/eval/imagenet_8gpu.yaml \\
                         data.root=/imagenet run.dir=/shared/runs/darts_v2
segmentation         python train_eval.py --config configs/eval/scenes.yaml          DeepLabv3, no download
SLURM                sbatch --nodes=2 experiments/slurm/retrain.slurm --config configs/eval/imagenet_8gpu.yaml ...

`network.genotype` is a published name, a JSON file, or the run folder of a finished search. The same command
resumes a run that was stopped or killed. `--help` lists every setting, `--help task=segmentation` those of a
segmentation.
"""

import sys

from nge_search.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
