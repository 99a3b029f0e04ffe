"""Search for a cell with neural graph embedding.

CPU, no download     python train_search.py --config configs/search/digits.yaml
one GPU              python train_search.py --config configs/search/cifar10.yaml data.root=/data
8 GPUs, one node     torchrun --standalone --nproc_per_node=8 train_search.py --config configs/search/cifar10.yaml
2 nodes of 8 GPUs    torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 \\
                         train_search.py --config configs/search/cifar10.yaml data.root=/data
table of accuracies  python train_search.py --config configs/search/nb201_reinforce.yaml   (`nge table` makes it)
short trainings      python train_search.py --config configs/search/images_training.yaml data.root=/images

`search.batch_size` counts the images of all processes together. The same command resumes a run that was
stopped or killed; `--max-restarts=N` lets torchrun do so by itself. `--help` lists every setting,
`--help task=queries` those of a search by queries: in a table, or by short trainings.
"""

import sys

from nge_search.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
