"""What the command line offers: each command's module in stages/, its options, and what it does."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
PLACE = click.Path(path_type=Path)  # a folder or an archive

# Options that a few commands share; a stage is given only those the user wrote.
OPTIONS = {
    "no_face": click.option("--no-face", type=click.Choice(["reject", "keep"]), help="Content without a face."),
    "data": click.option("--data", type=FOLDER, required=True, help="Folder of training pictures."),
    "check": click.option("--check", type=FOLDER, help="Folder to measure the result on; never trained on."),
    "minutes": click.option("--minutes", type=click.FloatRange(min=0), help="Stop after so long."),
    "images": click.option("--images", type=click.IntRange(min=1), help="Draw so many faces to fit on."),
    "table": click.option("--table", type=click.IntRange(2, 4), required=True, help="The paper's table to make."),
    "steps": click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps."),
    "batch": click.option("--batch", type=click.IntRange(min=1), help="Pictures a step in all [default: 8]."),
    "unlock": click.option("--unlock", type=click.IntRange(min=1),
                           help="e4e: free one more slot of W+ each so many steps [default: 2000]."),
    "critic": click.option("--critic", help="Weights of a published discriminator to start from: a name, or a path."),
    "stay": click.option("--stay", type=click.FloatRange(min=0),
                         help="Hold to what the source paints of the same latent, so strongly [default: 0]."),
    "mapping": click.option("--mapping", is_flag=True, default=None,
                            help="Train the mapping network, too: the encoder then has to be trained anew."),
    "phase": click.option("--phase", type=click.Choice(("reconstruct", "stylize")),
                          help="Phase that a new run starts in; the first one takes train.reconstruction_steps."),
    "shipped": click.option("--shipped/--from-scratch", default=None, help="Start from the shipped weights [default]."),
    "export": click.option("--export", type=FILE, help="Write the averaged weights in fp16."),
    "output": click.option("--output", "-o", type=FILE, help="The file to write [default: in weights/portable, RUN]."),
}

# Command, its module, options, what it does; in the order data flows.
STAGES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("samples", "stages.preprocess.samples", (),
     "Make the sample pictures: faces from the generator, public-domain paintings."),
    ("align", "stages.preprocess.align", ("no_face",), "Find the faces and cut aligned squares."),
    ("latents", "stages.preprocess.latents", (), "Invert the aligned pictures into the generator's W+ space."),
    ("masks", "stages.preprocess.masks", (), "Segment them into hair, face and background."),
    ("aladin-codes", "stages.preprocess.aladin_codes", (), "Embed the style of each region."),
    ("shards", "stages.preprocess.shards", (), "Pack the caches into webdataset shards."),
    ("train", "stages.train.run", ("steps", "minutes", "shipped", "phase", "export"),
     "Train the hypernetwork; run it again to go on."),
    ("eval", "stages.evaluate.comparison", (), "Compare the methods over content x style pairs."),
    ("ablation", "stages.recipes.ablation", ("table", "steps"), "Make one of the paper's ablation tables, 2, 3 or 4."),
    ("demo", "stages.recipes.demo", (), "Run every stage on the sample pictures and draw a gallery."),
)
LAZY = {"samples", "align", "latents", "masks", "aladin_codes", "shards"}  # look for a GPU only when there is work
TRAININGS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("fit-head", "stages.pretrain.output_head", ("images", "steps", "minutes", "shipped", "output"),
     "Fit the generator's 256 px output head; run it again to go on."),
    ("finetune-generator", "stages.pretrain.generator",
     ("data", "steps", "minutes", "batch", "critic", "stay", "mapping", "output"),
     "Teach the generator DATA/content and DATA/style, aligned portraits; run it again to go on."),
    ("train-inverter", "stages.pretrain.inverter", ("data", "steps", "minutes", "batch", "unlock", "images", "output"),
     "Train the encoder from a portrait to W+, of the profile's kind; run it again to go on."),
    ("train-parser", "stages.pretrain.parser", ("data", "minutes", "shipped", "check", "output"),
     "Distil the portrait parser."),
    ("train-aladin", "stages.pretrain.aladin", ("data", "steps", "minutes", "check", "output"),
     "Train the style code's head; sub-folders of DATA/style are style groups; run it again to go on."),
)
