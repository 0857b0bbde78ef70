#!/usr/bin/env bash
# Two machines on one host: two network namespaces with host names of their own, joined by a cable
# (veth) and by a shared folder. Trains and answers across them, and compares with one machine.
#
#     sudo tests/machines/two_machines.sh [PYTHON] [PART ...]
#
# Parts: train, predict, dies (a machine dies and comes back), apart (no shared folder); all by
# default. Needs root and Debian's iproute2. Leaves nothing behind.
set -euo pipefail

python=${1:-python3}
parts=${*:2}
parts=${parts:-train predict dies apart}
if [ "$(id -u)" != 0 ] || ! command -v ip > /dev/null; then
    echo "two_machines.sh needs root, and the command ip (apt-get install iproute2)" >&2
    exit 2
fi
work=$(mktemp -d)
export OMP_NUM_THREADS=1 HOME=$work DYNREFER_CACHE=$work/cache

clean_up() {
    for name in a b; do
        ip netns pids "machine-$name" 2> /dev/null | xargs -r kill -9 2> /dev/null || true
        ip netns del "machine-$name" 2> /dev/null || true
        rm -rf "/etc/netns/machine-$name"
    done
    rm -rf "$work"
}
trap clean_up EXIT

ip netns add machine-a
ip netns add machine-b
ip link add dynrefer-a netns machine-a type veth peer name dynrefer-b netns machine-b
for name in a b; do
    mkdir -p "/etc/netns/machine-$name" # what `ip netns exec` shows as /etc
    printf '127.0.0.1 localhost\n10.99.0.1 machine-a\n10.99.0.2 machine-b\n' \
        > "/etc/netns/machine-$name/hosts"
    ip -n "machine-$name" link set lo up
    ip -n "machine-$name" link set "dynrefer-$name" up
done
ip -n machine-a address add 10.99.0.1/24 dev dynrefer-a
ip -n machine-b address add 10.99.0.2/24 dev dynrefer-b

# on NAME COMMAND...: run a command on a machine.
on() {
    local name=machine-$1
    shift
    ip netns exec "$name" unshare --uts sh -c "hostname $name"' && exec "$@"' sh "$@"
}

# torchrun_on NAME ARGUMENTS...: one of two machines, with one process each.
torchrun_on() {
    local name=$1
    shift
    on "$name" "$python" -m torch.distributed.run --nnodes=2 --nproc_per_node=1 \
        --rdzv_backend=c10d --rdzv_id=two --rdzv_endpoint=machine-a:29500 "$@"
}

# train_options OUTPUT: the arguments of a short training.
train_options() {
    echo -m lavis_dynrefer.train --cfg-path projects/dynrefer/synthetic.yaml --options \
        "run.output_dir=$1" run.device=cpu run.max_epoch=2 run.batch_size_train=8 \
        run.num_workers=0 run.save_freq=1 run.log_freq=1 "run.test_splits=[]" \
        "datasets.synthetic_region.build_info.root=$work/scenes" \
        datasets.synthetic_region.build_info.scenes=12
}

# on_one_host: the same training by two processes of this host; once.
on_one_host() {
    if [ ! -d "$work/one_host" ]; then
        # shellcheck disable=SC2046
        "$python" -m torch.distributed.run --standalone --nproc_per_node=2 \
            $(train_options "$work/one_host") > "$work/one_host.txt" 2>&1 \
            || { cat "$work/one_host.txt"; return 1; }
    fi
}

# compare FOLDER: the last checkpoint and the losses with those of one host.
compare() {
    "$python" - "$work/one_host" "$1" << 'END'
import json, sys
from pathlib import Path
import torch

weights, losses = [], []
for root in map(Path, sys.argv[1:]):
    (path,) = root.rglob("checkpoint_last.pth")
    weights.append(torch.load(path)["model"])
    rows = (path.parent / "log.txt").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(row) for row in rows if row.startswith('{"train_epoch"')]
    losses.append([(row["train_epoch"], row["train_loss"]) for row in rows])
largest = max((weights[0][key] - weights[1][key]).abs().max().item() for key in weights[0])
print("losses by epoch:", *losses)
print("largest difference of a weight:", largest)
assert losses[0] == losses[1] and largest < 1e-6
END
}

for part in $parts; do
    echo "== $part"
    case $part in
        train)
            on_one_host
            # shellcheck disable=SC2046
            torchrun_on b $(train_options "$work/two") > "$work/b.txt" 2>&1 &
            # shellcheck disable=SC2046
            torchrun_on a $(train_options "$work/two") > "$work/a.txt" 2>&1 \
                || { cat "$work/a.txt" "$work/b.txt"; exit 1; }
            wait $!
            ls "$work"/two/*
            compare "$work/two"
            ;;
        predict)
            "$python" - "$work/images" << 'END'
import sys
from pathlib import Path
from lavis_dynrefer.synthetic import make_scene, render

folder = Path(sys.argv[1])
folder.mkdir()
for number in range(12):
    render(make_scene(0, 2_000_001 + number)).save(folder / f"{number:02}.png")
(folder / "05.png").write_bytes(b"no image")
END
            ask="-m lavis_dynrefer.cli predict $work/images --whole-image --tasks caption"
            "$python" $ask --output "$work/alone.csv" || true # 3: a damaged image
            torchrun_on b $ask --output "$work/shared.csv" > "$work/b.txt" 2>&1 &
            torchrun_on a $ask --output "$work/shared.csv" > "$work/a.txt" 2>&1 || true
            wait $! || true
            grep -v "^ *$" "$work/a.txt" | head -12
            cut -d, -f1-8 "$work/alone.csv" > "$work/1"
            cut -d, -f1-8 "$work/shared.csv" > "$work/2"
            cmp "$work/1" "$work/2" && echo "the same $(wc -l < "$work/2") lines"
            ;;
        dies)
            on_one_host
            # Without it torch 2.14 does not tell the machine that comes back where the others are.
            export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
            # shellcheck disable=SC2046
            torchrun_on a --max-restarts=3 $(train_options "$work/died") > "$work/a.txt" 2>&1 &
            first=$!
            # shellcheck disable=SC2046
            torchrun_on b --max-restarts=3 $(train_options "$work/died") > "$work/b.txt" 2>&1 &
            until ls "$work"/died/*/checkpoint_last.pth > /dev/null 2>&1; do
                kill -0 $first || { cat "$work/a.txt"; exit 1; }
                sleep 0.1
            done
            ip netns pids machine-b | xargs kill -9
            echo "machine-b is dead"
            sleep 5
            # shellcheck disable=SC2046
            torchrun_on b --max-restarts=3 $(train_options "$work/died") > "$work/b2.txt" 2>&1 &
            wait $first || { cat "$work/a.txt" "$work/b2.txt"; exit 1; }
            wait $! || { cat "$work/b2.txt"; exit 1; }
            grep -h "go on with\|resumed from\|begin" "$work"/died/*/log.txt "$work/a.txt" \
                "$work/b2.txt" | sort -u | head
            compare "$work/died"
            ;;
        apart)
            mkdir -p "$work/apart"
            # shellcheck disable=SC2046
            before="unshare --mount sh -c" hidden="mount -t tmpfs none $work/apart"
            torchrun_on b --no-python $before "$hidden && exec \"\$@\"" sh "$python" \
                $(train_options "$work/apart") > "$work/b.txt" 2>&1 &
            # shellcheck disable=SC2046
            torchrun_on a $(train_options "$work/apart") > "$work/a.txt" 2>&1 && exit 1
            wait $! || true
            grep -h "^error" "$work/a.txt" "$work/b.txt"
            ;;
    esac
done
