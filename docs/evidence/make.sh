#!/usr/bin/env bash
# Make the pages of evidence: run all benchmarks, and write each page from its runs.
#
#     DATA=data RUNS=runs docs/evidence/make.sh
#
# DATA has the folders that docs/evidence/index.md names, RUNS gets the results. What was stopped goes on when the
# script is started again; a finished run is not run again. PROCESSES is how many work at a time, each with one thread.
# TRIAL=3 runs three images of everything; PAGES is the folder of the pages, by default that of this script.
set -euo pipefail

: "${DATA:?the folder with the data and the weights}" "${RUNS:?the folder for the results}"
PAGES=${PAGES:-$(dirname "$0")}
export OMP_NUM_THREADS=1
WHERE="segmentation,localisation"
FAITHFUL="auc,deletion,insertion,saco"
DEIT=(-M deit_tiny_patch16_224 -c "$DATA/deit_tiny_patch16_224.safetensors")
WEIGHTS="The weights are those of DeiT-tiny, except that the values of its LayerNorms are rounded."

bench() { # the name of the run, then the options of captum-astro bench
    echo "== $1"
    torchrun --nproc-per-node "${PROCESSES:-2}" -m captum_astro.cli bench --out "$RUNS/$1" --examples 0 \
        --chunk-size 2 "${@:2}" ${TRIAL:+-n "$TRIAL"} >/dev/null
}

page() { # the name of the page, its title, its notes, a line with --, then its runs
    local name=$1 title=$2 notes=()
    shift 2
    while [ "$1" != -- ]; do
        notes+=(--note "$1")
        shift
    done
    shift
    python -m captum_astro evidence "${@/#/$RUNS/}" --title "$title" "${notes[@]}" --out "$PAGES/$name.md"
}

photographs() {
    bench boxes "${DEIT[@]}" --data "boxes:$DATA/photographs" --metrics "accuracy,$WHERE" --explained predicted
    bench masks "${DEIT[@]}" --data "masks:$DATA/masks" --metrics "$WHERE" --explained predicted --crop none
    bench faithfulness "${DEIT[@]}" --data "boxes:$DATA/photographs" --metrics "accuracy,$FAITHFUL" \
        --explained predicted --steps 8 -n 50
    bench randomisation "${DEIT[@]}" --data "boxes:$DATA/photographs" --metrics "cascading randomisation" \
        --explained predicted -n 6
    page photographs "On photographs" "$WEIGHTS" \
        "To be made within an hour on two cores, pixels are removed in 8 steps (the papers: 20) on the first 50 \
photographs, and layers are randomised for the first 6." \
        "Boxes hold background too, and some objects have none: where a map lies is judged better by the masks." \
        "The definition of ProjectedFlow was chosen on half of these photographs. How it fares on the other half alone \
is on [its page](../methods/projectedflow.md#what-was-tried)." \
        -- boxes masks faithfulness randomisation
}

scenes() {
    local models=(-M scenes_vit_tiny_patch4_64,scenes_pit_tiny_patch4_64,astromorphic_scenes_tiny_patch8_64)
    bench scenes "${models[@]}" --data scenes --metrics "accuracy,$WHERE,$FAITHFUL" --explained predicted \
        --steps 8 -n 40
    bench scenes-randomisation "${models[@]}" --data scenes --metrics "cascading randomisation" --explained predicted \
        -n 6
    page scenes "On scenes with a known object" \
        "The data and the models are part of the package: whoever installs it can make this page." \
        "To be made within an hour on two cores, it has 40 scenes, pixels are removed in 8 steps, and layers are \
randomised for 6 scenes." \
        -- scenes scenes-randomisation
}

gaze() {
    bench gaze "${DEIT[@]}" --data "clickme:$DATA/gaze" --metrics human --explained predicted
    page gaze "Where people looked" "$WEIGHTS" -- gaze
}

tables() {
    local photographs=(--data "boxes:$DATA/photographs" -n 40 --steps 10)
    bench table1-cifar10 --preset vtranm-table1 --part cifar10 -M astromorphic_cifar10_tiny_patch4_32 \
        --data "cifar10:$DATA/cifar10_test.parquet" -n 200 --steps 10
    bench table2-segmentation "${DEIT[@]}" --preset vtranm-table2 --part segmentation --data "masks:$DATA/masks"
    bench table2-perturbation "${DEIT[@]}" --preset vtranm-table2 --part perturbation "${photographs[@]}"
    bench table3 "${DEIT[@]}" --preset vtranm-table3 --part perturbation "${photographs[@]}"
    bench table4-segmentation "${DEIT[@]}" --preset vtranm-table4 --part segmentation --data "masks:$DATA/masks"
    bench table4-perturbation "${DEIT[@]}" --preset vtranm-table4 --part perturbation "${photographs[@]}"
    page tables "VTranM's tables" \
        "The paper's figures stand beside figures of the same kind, not of the same models and images: the paper has \
DeiT-B, ViT-B and ViT-L on ImageNet and its segmentations, and models of its own on CIFAR. Compare the order of the \
methods, not the digits." \
        "Here are DeiT-tiny on 40 photographs of ImageNet and on others with masks, in 10 steps (the paper: 20), and a \
small astromorphic model on CIFAR-10. $WEIGHTS" \
        "The model on CIFAR-10 averages its tokens, where the definition of VTranM [says \
little](../methods.md#on-a-hierarchical-model): the row starts out equal for all of them. The paper's models have a class token." \
        -- table1-cifar10 table2-segmentation table2-perturbation table3 table4-segmentation table4-perturbation
}

# The parts below take hours, and are made when they are named.

astrocytes() {
    local gaze=("${DEIT[@]}" --data "clickme:$DATA/gaze") trial=(${TRIAL:+-n "$TRIAL"}) layer runs published
    published="k=6,tau=3,phi=-0.5,alpha=1.5,beta=0.05"
    runs=("$RUNS"/{published-attn.proj,published-mlp.fc1,search,strength,without-gradients})
    runs+=("$RUNS"/scenes-{attn.proj,mlp.fc1,astromorphic})
    for layer in attn.proj mlp.fc1; do
        echo "== published values at blocks.0.$layer"
        python -m captum_astro vita evaluate "${gaze[@]}" "${trial[@]}" --out "$RUNS/published-$layer" \
            --vita "layer=blocks.0.$layer,$published" >/dev/null
    done
    echo "== search"
    python -m captum_astro vita search "${gaze[@]}" "${trial[@]}" --layer "blocks.[0-2].*" --phi=-0.5,0 --alpha 1.5 \
        --out "$RUNS/search" >/dev/null
    echo "== alpha and beta"
    python -m captum_astro vita search "${gaze[@]}" "${trial[@]}" --layer blocks.0.attn.proj --k 6 --tau 3 --phi=-0.5 \
        --alpha 1.1,1.25,1.5,2 --beta 0.005,0.05,0.5,0.9 --out "$RUNS/strength" >/dev/null
    echo "== methods without gradients"
    # every fourth photograph, of all classes: these methods take a hundred times as long
    mkdir -p "$RUNS/gaze-fourth"
    find "$DATA/gaze" -name "*.npz" | sort | awk "NR % 4 == 1" | xargs cp -t "$RUNS/gaze-fourth"
    python -m captum_astro vita evaluate "${DEIT[@]}" --data "clickme:$RUNS/gaze-fourth" "${trial[@]}" \
        --out "$RUNS/without-gradients" --vita "layer=blocks.0.attn.proj,$published" \
        --method "Occlusion,Lime:samples=200,KernelShap:samples=200" >/dev/null
    on_scenes scenes-attn.proj scenes_vit_tiny_patch4_64 blocks.0.attn.proj
    on_scenes scenes-mlp.fc1 scenes_vit_tiny_patch4_64 blocks.0.mlp.fc1
    on_scenes scenes-astromorphic astromorphic_scenes_tiny_patch8_64 blocks.0.mlp.fc1
    python -m captum_astro vita report "${runs[@]}" --title "Astrocytes and where people looked" --note "$WEIGHTS" \
        --note "The published setting first, at two layers; then the best of 288 settings, and of 16 strengths at one \
layer; then methods without gradients, on every fourth photograph; at last bundled models on 120 scenes, where the \
human map is the object's mask, and nobody looked." \
        --note "The 120 photographs show birds of three classes of ImageNet, 60, 40 and 20 of each, and both halves have \
all three. ClickMe's own images and other ImageNet weights were not at hand. Read the page as one on birds and DeiT-tiny." \
        --out "$PAGES/astrocytes.md"
}

on_scenes() { # the name of the run, the model and the layer; $published is the caller's
    echo "== $1"
    python -m captum_astro vita evaluate --data scenes -n "${TRIAL:-120}" -M "$2" --out "$RUNS/$1" \
        --vita "layer=$3,$published" >/dev/null
}

astromorphic() {
    local imdb="$RUNS/ablation-imdb" cifar="$RUNS/ablation-cifar10" run
    local jobs=(--jobs "${PROCESSES:-2}" ${TRIAL:+-n 200 --seeds 1})
    echo "== ablation on IMDB"
    python -m captum_astro ablate imdb --data "$DATA" --out "$imdb" "${jobs[@]}" --reach 0.85 --set dim=64 \
        --set lr=2e-3 --set length=256 --set epochs=3 --variants "full,no positions,linear,neither,softmax,\
sigma none,sigma outside,linear none:alpha=1:nonlinearity=none,\
linear louder:alpha=1:nonlinearity=none:scale=0.25" >/dev/null
    echo "== ablation on CIFAR-10"
    python -m captum_astro ablate cifar10 --data "$DATA" --out "$cifar" "${jobs[@]}" --reach 0.45 --set dim=64 \
        --set depth=3 --set steps=1200 --set batch_size=64 --set scale=64 --set evaluate_every=100 \
        --set validation=2500 \
        --variants "full,sigma none,sigma outside,softmax,no positions,linear,neither,no embedding,no order" >/dev/null
    for run in imdb/full imdb/sigma-none imdb/softmax cifar10/full cifar10/sigma-none cifar10/no-embedding \
        cifar10/softmax; do
        [ ! -f "$RUNS/parts-$run/parts.md" ] || continue
        echo "== parts of $run"
        python -m captum_astro parts "$RUNS/ablation-$run/seed-0" --data "$DATA" --out "$RUNS/parts-$run" >/dev/null
    done
    echo "== words"
    python -m captum_astro words "$imdb"/{full,sigma-none,softmax}/seed-0 --data "$DATA" --out "$RUNS/words" \
        ${TRIAL:+-n "$TRIAL"} >/dev/null
    cp "$RUNS"/words/words.{md,svg} "$PAGES"
    for run in "$imdb" "$cifar"; do cp "$run/ablation.png" "$PAGES/${run##*/}.png"; done
    {
        cat <<'TEXT'
# Astromorphic attention, part by part

What the variants are is [here](../astromorphic.md#ablations), and what follows from the tables
[there](../astromorphic.md#what-was-found). The intervals of the ablations are [Student's, over three
seeds](index.md#how-to-read-them); those of the parts are bootstrap intervals over the test samples of one run.

## Reviews (IMDB)

Models of width 64 and one block that read the first 256 words of a review, trained for three epochs. The accuracy is that on the
test reviews, with the weights of the best of three validations; the epochs are those to 85 % of the validation reviews. "linear
none" has no sigma, and "linear louder" neither has one, with s = m / 64.

TEXT
        cat "$imdb/ablation.md"
        cat <<'TEXT'

![Learning curves of the variants on IMDB](ablation-imdb.png)

## Photographs (CIFAR-10)

Models of width 64 and three blocks with patches of 4 pixels and s = 4 m, trained for 1,200 steps of 64 images (1.6 epochs). The
epochs are those to 45 % of the validation images, which are looked at every 100 steps; the best weights are tested. "no embedding" leaves positions to the
astrocytes alone, and "no order" has neither: the image is a set of patches.

TEXT
        cat "$cifar/ablation.md"
        printf '\n![Learning curves of the variants on CIFAR-10](ablation-cifar10.png)\n'
        for run in "$RUNS"/parts-{imdb/{full,sigma-none,softmax},cifar10/{full,sigma-none,no-embedding,softmax}}; do
            printf '\n## What the parts contribute: %s\n\nOf the run with seed 0.\n\n' "$(named "${run#*/parts-}")"
            cat "$run/parts.md"
        done
    } >"$PAGES/astromorphic.md"
}

language() {
    local runs="$RUNS/ablation-wikitext2" run
    echo "== ablation on WikiText-2"
    python -m captum_astro ablate wikitext2 --data "$DATA" --out "$runs" --jobs "${PROCESSES:-2}" \
        ${TRIAL:+-n 200 --seeds 1} --reach 250 --set dim=64 --set vocabulary=2048 --set steps=1000 \
        --set evaluate_every=100 --variants "full,sigma none,no positions,linear,softmax,\
all tokens:causal=false,softmax on all tokens:attention=softmax:causal=false" >/dev/null
    for run in full sigma-none softmax; do
        [ ! -f "$RUNS/parts-wikitext2/$run/parts.md" ] || continue
        echo "== parts of $run"
        python -m captum_astro parts "$runs/$run/seed-0" --data "$DATA" -n 600 --out "$RUNS/parts-wikitext2/$run" >/dev/null
    done
    cp "$runs/ablation.png" "$PAGES/ablation-wikitext2.png"
    {
        cat <<'TEXT'
# Astromorphic language models

Models of width 64 and two blocks that read 128 byte pairs of WikiText-2, trained for 1,000 steps of 16 windows with three seeds.
The training text was not at hand: they are trained on nine tenths of the validation text, and the perplexity is that of the
test text. The epochs are those to a validation perplexity of 250; the curves are looked at every 100 steps. Intervals are
[Student's](index.md#how-to-read-them).

The paper's sums run over all tokens. "all tokens" and "softmax on all tokens" do so too, so these two see the token that they
predict: what they reach is no perplexity. It shows how much such a leak is worth.

TEXT
        cat "$runs/ablation.md"
        printf '\n![Learning curves of the variants on WikiText-2](ablation-wikitext2.png)\n'
        for run in full sigma-none softmax; do
            printf '\n## What the parts contribute: "%s"\n\nOf the run with seed 0, on the first 600 lines.\n\n' "${run//-/ }"
            cat "$RUNS/parts-wikitext2/$run/parts.md"
        done
    } >"$PAGES/language.md"
}

named() { # "imdb/sigma-none" as "sigma none" on IMDB
    local data=${1%%/*} variant=${1#*/}
    printf '"%s" on %s' "${variant//-/ }" "$([ "$data" = imdb ] && echo IMDB || echo CIFAR-10)"
}

scales() {
    local runs="$RUNS/scales-imdb"
    python -m captum_astro ablate imdb --data "$DATA" --out "$runs" --jobs "${PROCESSES:-2}" ${TRIAL:+-n 200 --seeds 1} \
        --set dim=64 --set lr=2e-3 --set length=64 --set epochs=2 --alphas 0.1,0.5,0.75,1 \
        --variants "full,4m:scale=64,16m:scale=256,16 D:scale=1024,500 D:scale=32000" >/dev/null
    {
        cat <<'TEXT'
# The exponent and the scale

Astromorphic models of width 64 and one block that read the first 64 words of a review of IMDB, trained for two epochs with three
seeds: alpha from 0.1 to 1 (0.25 is "full"), and s from m = 16 ("full") to 500 D, as the paper prints it. Intervals are
[Student's](index.md#how-to-read-them).

TEXT
        cat "$runs/ablation.md"
    } >"$PAGES/scales.md"
}

mkdir -p "$RUNS"
for part in "${@:-photographs scenes gaze tables}"; do
    for one in $part; do "$one"; done
done
