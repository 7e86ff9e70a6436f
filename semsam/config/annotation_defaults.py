"""Every key under ANNOTATION with its default (tools/annotate.py)."""

from __future__ import annotations

from .config import CfgNode as CN


def annotation_cfg() -> CN:
    """Naming masks (tools/annotate.py)."""
    node = CN()
    # Names of LABELER, in the order in which they run; of a field that two of them give the first
    # keeps the name, the second's is LABELER.FIELD.
    node.LABELERS = []
    # Photos that go through the labellers together; bounds memory.
    node.IMAGES_PER_BATCH = 4
    # Threads that read, and as many that write.
    node.NUM_THREADS = 2
    # What the labellers' models and TransformersMasks are computed in: float32, bfloat16, float16;
    # "" is float32 on a CPU, and on a GPU float16, of RegionCaptionLabeler bfloat16.
    node.DTYPE = ""
    masks = node.MASKS = CN()
    # Sa1bMasks, CocoMasks and TsvMasks read files, GeneratedMasks (Semantic-SAM, SAM) and
    # TransformersMasks (SAM to SAM 3) find masks, DetectedObjects boxes of what captions name.
    masks.NAME = "Sa1bMasks"
    # CocoMasks: the json.
    masks.ANNOTATIONS = ""
    # GeneratedMasks: as model_zoo.get takes it. TransformersMasks: a folder, or a name on the hub.
    masks.MODEL = ""
    # GeneratedMasks: a file or url instead of the model's own weights.
    masks.WEIGHTS = ""
    # Of both, the annotation engine's; segment-anything's own are 0.88, 0.95, 0, 1 and 0.
    masks.POINTS_PER_SIDE = 32
    masks.POINTS_PER_BATCH = 64
    masks.PRED_IOU_THRESH = 0.86
    masks.STABILITY_SCORE_THRESH = 0.92
    masks.CROP_N_LAYERS = 0
    masks.CROP_N_POINTS_DOWNSCALE_FACTOR = 2
    masks.MIN_MASK_REGION_AREA = 100
    node.CLOSED_SET = _closed_set()
    node.OPEN_SET = _open_set()
    node.CLIP = _clip()
    node.REGION_CAPTION = _region_caption()
    node.OPEN_VOCABULARY = _open_vocabulary()
    node.DATA_ENGINE = _data_engine()
    node.TEXT_EMBEDDING = _text_embedding()
    return node


def _closed_set() -> CN:
    """Votes of semantic segmenters (ClosedSetLabeler)."""
    node = CN()
    # SegFormer, OneFormer, Mask2Former, MaskFormer or any semantic segmenter of transformers: a
    # folder or a name on the hub. The first one's map is written, with the masks painted over it.
    node.SEGMENTERS = ["shi-labs/oneformer_coco_swin_large"]
    # For each segmenter ade20k, camvid, cityscapes, coco_panoptic, coco_panoptic_refined, a json
    # file, or "" for the model's own names.
    node.LABEL_MAPS = ["coco_panoptic_refined"]
    # Photos that a segmenter takes at once.
    node.BATCH_SIZE = 4
    return node


def _open_set() -> CN:
    """Names from captions and segmenters, chosen by CLIP and CLIPSeg (OpenSetLabeler)."""
    node = CN()
    # Each gives a mask one name; as in CLOSED_SET.
    node.SEGMENTERS = ["shi-labs/oneformer_coco_swin_large", "shi-labs/oneformer_ade20k_swin_large"]
    node.LABEL_MAPS = ["coco_panoptic_refined", "ade20k"]
    # BLIP: a folder or a name on the hub.
    node.CAPTIONER = "Salesforce/blip-image-captioning-large"
    # Longest caption in tokens.
    node.MAX_NEW_TOKENS = 20
    # A package or a folder; "" takes en_core_web_sm, of whatever package provides it.
    node.SPACY_MODEL = ""
    # As CLIP.MODEL.
    node.CLIP = "openai/clip-vit-large-patch14"
    # A folder or a name on the hub.
    node.CLIPSEG = "CIDAS/clipseg-rd64-refined"
    # Names that CLIP lets through to CLIPSeg.
    node.TOP_K = 3
    # Patches that a model takes at once; 0 for 64 on a GPU and 16 on a CPU.
    node.BATCH_SIZE = 0
    # Photos that a segmenter takes at once.
    node.SEGMENTER_BATCH_SIZE = 2
    return node


def _clip() -> CN:
    """A vocabulary's names, by CLIP (ClipLabeler)."""
    node = CN()
    # A folder or a name on the hub; open_clip's are open_clip:ARCHITECTURE:WEIGHTS,
    # hf-hub:OWNER/NAME and local-dir:FOLDER.
    node.MODEL = "openai/clip-vit-large-patch14"
    # Names, or .txt or .json files of them.
    node.VOCABULARY = []
    # Sentences with {} for the name; their features are averaged.
    node.TEMPLATES = ["a photo of a {}."]
    # Names that are listed for a mask, best first.
    node.TOP_K = 3
    # Probability among the vocabulary below which a mask is given no name.
    node.THRESHOLD = 0.0
    # Patches at once.
    node.BATCH_SIZE = 32
    return node


def _region_caption() -> CN:
    """Sentences about masks, by SCA (RegionCaptionLabeler)."""
    node = CN()
    # A model of the zoo, a yaml file, or the output folder of a training run.
    node.MODEL = "sca-vit-h-gpt2-large-vg"
    # A file or url; "" takes the model's own.
    node.WEIGHTS = ""
    # Of the search; 0 for the model's own.
    node.NUM_BEAMS = 0
    # "caption" or "recognition"; "" for the model's own.
    node.TASK = ""
    # Masks at once.
    node.BATCH_SIZE = 64
    return node


def _open_vocabulary() -> CN:
    """Names of a user's own classes, by a model with TextClassHead (OpenVocabularyLabeler)."""
    node = CN()
    # A model of the zoo, a yaml file, or the output folder of a training run.
    node.MODEL = ""
    # A file or url; "" takes the model's own.
    node.WEIGHTS = ""
    # Names, .txt or .json files of them, or one file of tools/build_classifier.py.
    node.CLASSES = []
    # Names that are listed for a mask, best first.
    node.TOP_K = 3
    # Probability among the classes below which a mask is given no name.
    node.THRESHOLD = 0.0
    # Masks at once.
    node.BATCH_SIZE = 64
    return node


def _data_engine() -> CN:
    """Boxes of what captions and a language model name (DetectedObjects)."""
    node = CN()
    # A json as COCO's captions; "" for NAME.txt beside each photo, or captions in rows of shards.
    node.CAPTIONS = ""
    # Captions of a photo that are used, the first ones; 0 for all.
    node.MAX_CAPTIONS = 0
    # A causal language model: a folder, a name on the hub, or package:NAME.
    node.LANGUAGE_MODEL = "bigscience/bloom-7b1"
    # The file in its folder, for weights in that format.
    node.GGUF_FILE = ""
    # Put prompts to it as a user's messages; else it continues them up to an empty line.
    node.CHAT = False
    # Prompts with {} for the caption; each is asked of each caption. Without any no language model
    # is loaded, and the captions' own words are looked for.
    node.TEMPLATES = []
    # Longest answer in tokens.
    node.MAX_NEW_TOKENS = 40
    # Of the search; 1 takes the most likely token each time.
    node.NUM_BEAMS = 1
    # Above 1 words that were there become less likely; small models repeat themselves without.
    node.REPETITION_PENALTY = 1.0
    # Prompts at once.
    node.LANGUAGE_BATCH_SIZE = 16
    # As OPEN_SET.SPACY_MODEL.
    node.SPACY_MODEL = ""
    # Grounding DINO, MM Grounding DINO, OWL-ViT, OWLv2: a folder or a name on the hub.
    node.DETECTOR = "IDEA-Research/grounding-dino-base"
    # Boxes that score this or less are dropped.
    node.THRESHOLD = 0.25
    # IoU above which two boxes of one name are the same.
    node.NMS_THRESHOLD = 0.7
    # Boxes of a photo, the best ones.
    node.MAX_BOXES = 100
    # Photos that the detector takes at once.
    node.DETECTOR_BATCH_SIZE = 4
    return node


def _text_embedding() -> CN:
    """Names and captions in CLIP's text space (TextEmbeddingLabeler)."""
    node = CN()
    # As CLIP.MODEL.
    node.MODEL = "open_clip:ViT-L-14:datacomp_xl_s13b_b90k"
    # Texts at once.
    node.BATCH_SIZE = 256
    return node
