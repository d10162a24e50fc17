"""The golden table: questions with known answers, and where each answer comes from. It feeds the tests of layers, of
kernels and of the command line.

No number here was made by convcalc. TORCH: PyTorch 2.13 gave the shape and the parameters by running the layer, its flop
counter the MACs (it counts two operations for each), and the exact FLOPs were added up by hand from the conventions in
docs/conventions.md. PAD_TORCH: the same with an explicit padding layer before it, for words that PyTorch does not have.
"""

# ruff: noqa: E501  a table is read by its lines
# fmt: off

from __future__ import annotations

from typing import NamedTuple

TORCH = "torch 2.13; FLOPs by hand"
PAD_TORCH = "torch 2.13 after an explicit pad; FLOPs by hand"
REFUSES = "torch 2.13 refuses too"
BY_HAND = "by hand"
GRADIENT = "torch 2.13: where the gradient of an output is not 0"
GRAMMAR = "the grammar of expressions"
NOTES = "study notes, checked by hand"
FIELD = "measured against other counters, checked by hand"


class Case(NamedTuple):
    """Layers on an input. `shape` is the last output's, or the last few, spaces between; sums for all layers."""

    id: str
    input: str
    layers: str
    shape: str
    params: int
    macs: int
    flops: int
    truth: str = TORCH


class Refusal(NamedTuple):
    """What is not answered: the exit status, the sentence, and the characters that the caret is under."""

    id: str
    input: str
    layers: str
    status: int
    sentence: str
    caret: str | None
    truth: str



CASES = (
    # --- convolution: kernel, stride, padding, dilation
    Case("ResNet's first layer", "3x224x224", "conv:64,k7,s2,p3,nobias", "64x112x112", 9408, 118_013_952, 235_225_088),
    Case("ResNet's first layer with bias", "3x224x224", "conv:64,k7,s2,p3", "64x112x112", 9472, 118_013_952, 236_027_904),
    Case("AlexNet's first layer", "3x227x227", "conv:96,k11,s4", "96x55x55", 34_944, 105_415_200, 210_830_400),
    Case("VGG's first layer", "3x224x224", "conv:64,k3,p1", "64x224x224", 1792, 86_704_128, 173_408_256),
    Case("no padding", "3x32x32", "conv:6,k5", "6x28x28", 456, 352_800, 705_600),
    Case("kernel of the whole input", "16x5x5", "conv:120,k5", "120x1x1", 48_120, 48_000, 96_000),
    Case("1x1", "64x56x56", "conv:256,k1", "256x56x56", 16_640, 51_380_224, 102_760_448),
    Case("1x1 strided", "256x56x56", "conv:512,k1,s2,nobias", "512x28x28", 131_072, 102_760_448, 205_119_488),
    Case("rectangular kernel", "3x20x30", "conv:8,k3x5", "8x18x26", 368, 168_480, 336_960),
    Case("rectangular everything", "4x21x33", "conv:6,k3x5,s2x3,p1x2,d2x1", "6x10x11", 366, 39_600, 79_200),
    Case("stride larger than the kernel", "2x17x17", "conv:4,k2,s5", "4x4x4", 36, 512, 1024),
    Case("stride that leaves a remainder", "1x10x10", "conv:1,k3,s4", "1x2x2", 10, 36, 72),
    Case("dilation 2", "3x32x32", "conv:8,k3,d2", "8x28x28", 224, 169_344, 338_688),
    Case("dilation fits exactly", "1x7x7", "conv:1,k3,d3", "1x1x1", 10, 9, 18),
    Case("dilation of a 1x1 kernel", "2x5x5", "conv:3,k1,d9", "3x5x5", 9, 150, 300),
    Case("padding larger than the kernel", "1x4x4", "conv:2,k3,p5", "2x12x12", 20, 2592, 5184),
    Case("padding alone makes room", "1x1x1", "conv:2,k3,p1", "2x1x1", 20, 18, 36),
    Case("unequal padding", "3x9x9", "conv:4,k4,p1+2", "4x9x9", 196, 15_552, 31_104, PAD_TORCH),
    Case("unequal padding per axis", "3x9x9", "conv:4,k4x3,p0+1x1+1", "4x7x9", 148, 9072, 18_144, PAD_TORCH),
    Case("unequal padding before only", "2x6x6", "conv:2,k3,p2+0", "2x6x6", 38, 1296, 2592, PAD_TORCH),
    Case("channels left out are the channels in", "5x8x8", "conv:k3,p1", "5x8x8", 230, 14_400, 28_800),
    Case("a batch in the shape", "4x3x8x8", "conv:2,k3", "4x2x6x6", 56, 7776, 15_552),
    Case("PyTorch's call", "3x32x32", "Conv2d(3,8,3,padding=1)", "8x32x32", 224, 221_184, 442_368),
    Case("PyTorch's call with names", "3x32x32", "Conv2d(3,8,kernel_size=(5,3),stride=(2,1),padding=(2,1),bias=False)", "8x16x32", 360, 184_320, 364_544),
    Case("PyTorch's call, padding word", "3x32x32", "Conv2d(3,8,kernel_size=(4,4),padding='same')", "8x32x32", 392, 393_216, 786_432),
    Case("large sizes stay exact", "512x4096x4096", "conv:1024,k7,p3", "1024x4096x4096", 25_691_136, 431_008_558_088_192, 862_017_116_176_384),
    # --- convolution: padding words and modes
    Case("same, odd kernel", "3x32x32", "conv:8,k3,psame", "8x32x32", 224, 221_184, 442_368),
    Case("same, even kernel", "3x8x8", "conv:8,k4,psame", "8x8x8", 392, 24_576, 49_152),
    Case("same, even kernel, dilation", "3x8x8", "conv:8,k4,d3,psame", "8x8x8", 392, 24_576, 49_152),
    Case("same per axis", "3x8x9", "conv:8,k2x5,psame", "8x8x9", 248, 17_280, 34_560),
    Case("valid", "3x8x8", "conv:8,k3,pvalid", "8x6x6", 224, 7776, 15_552),
    Case("valid strided", "3x9x9", "conv:8,k3,s2,pvalid", "8x4x4", 224, 3456, 6912),
    Case("same_upper strided", "3x224x224", "conv:8,k7,s2,psame_upper,nobias", "8x112x112", 1176, 14_751_744, 29_403_136, PAD_TORCH),
    Case("same_lower strided", "3x224x224", "conv:8,k7,s2,psame_lower,nobias", "8x112x112", 1176, 14_751_744, 29_403_136, PAD_TORCH),
    Case("same_upper, stride past the kernel", "1x10x10", "conv:1,k1,s3,psame_upper", "1x4x4", 2, 16, 32),
    Case("causal", "4x100", "conv1d:8,k3,d4,pcausal", "8x100", 104, 9600, 19_200, PAD_TORCH),
    Case("causal strided", "4x100", "conv1d:8,k4,s3,pcausal", "8x34", 136, 4352, 8704, PAD_TORCH),
    Case("full", "1x5x5", "conv:1,k3,pfull", "1x7x7", 10, 441, 882),
    Case("full dilated", "1x5x5", "conv:1,k3,d2,pfull", "1x9x9", 10, 729, 1458),
    Case("reflect", "3x8x8", "conv:8,k3,p1,padding_mode=reflect", "8x8x8", 224, 13_824, 27_648),
    Case("reflect, as far as it goes", "3x4x4", "conv:8,k3,p3,padding_mode=reflect", "8x8x8", 224, 13_824, 27_648),
    Case("replicate", "3x4x4", "conv:8,k3,p5,padding_mode=replicate", "8x12x12", 224, 31_104, 62_208),
    Case("circular, once round", "3x4x4", "conv:8,k3,p4,padding_mode=circular", "8x10x10", 224, 21_600, 43_200),
    Case("same with reflect", "3x8x8", "conv:8,k4,psame,padding_mode=reflect", "8x8x8", 392, 24_576, 49_152),
    # --- convolution: groups and ranks
    Case("depthwise", "32x16x16", "conv:k3,p1,depthwise", "32x16x16", 320, 73_728, 147_456),
    Case("depthwise, multiplier 2", "32x16x16", "conv:64,k3,p1,depthwise,nobias", "64x16x16", 576, 147_456, 278_528),
    Case("two groups", "16x8x8", "conv:32,k3,g2", "32x6x6", 2336, 82_944, 165_888),
    Case("ResNeXt's groups", "128x28x28", "conv:128,k3,p1,g32,nobias", "128x28x28", 4608, 3_612_672, 7_124_992),
    Case("1-d", "16x50", "conv1d:33,k3,s2", "33x24", 1617, 38_016, 76_032),
    Case("1-d dilated, grouped", "16x50", "conv1d:32,k5,d2,g4,p4", "32x50", 672, 32_000, 64_000),
    Case("1-d same, even kernel", "4x9", "conv1d:4,k6,psame", "4x9", 100, 864, 1728),
    Case("1-d from the input's axes", "8x100", "conv1d:k3", "8x98", 200, 18_816, 37_632),
    Case("3-d", "16x10x50x100", "conv3d:33,k3,s2", "33x4x24x49", 14_289, 67_060_224, 134_120_448),
    Case("3-d rectangular", "16x10x50x100", "conv3d:33,k3x5x2,s2x1x1,p4x2x0", "33x8x50x99", 15_873, 627_264_000, 1_254_528_000),
    Case("3-d rank from the kernel", "3x8x16x16", "conv:4,k3x3x3,p1", "4x8x16x16", 328, 663_552, 1_327_104),
    Case("3-d depthwise", "6x5x6x7", "conv3d:k2,depthwise", "6x4x5x6", 54, 5760, 11_520),
    Case("3-d unequal padding", "2x4x4x4", "conv3d:2,k2,p0+1", "2x4x4x4", 34, 2048, 4096, PAD_TORCH),
    # --- transposed convolution
    Case("output_padding", "8x8x8", "convt:4,k3,s2,p1,op1,nobias", "4x16x16", 288, 18_432, 35_708),
    Case("output_padding with bias", "8x8x8", "convt:4,k3,s2,p1,op1", "4x16x16", 292, 18_432, 36_732),
    Case("groups 4", "8x8x8", "convt:8,k2,s2,g4,nobias", "8x16x16", 64, 4096, 6144),
    Case("stride 1, kernel 3", "1x2x2", "convt:1,k3,nobias", "1x4x4", 9, 36, 56),
    Case("DCGAN's first layer", "100x1x1", "convt:512,k4,nobias", "512x4x4", 819_200, 819_200, 1_630_208),
    Case("DCGAN's second layer", "512x4x4", "convt:256,k4,s2,p1,nobias", "256x8x8", 2_097_152, 33_554_432, 67_083_264),
    Case("U-Net's up", "128x28x28", "convt:64,k2,s2", "64x56x56", 32_832, 25_690_112, 51_380_224),
    Case("stride larger than the kernel leaves holes", "2x3x3", "convt:3,k2,s3", "3x8x8", 27, 216, 516),
    Case("dilation", "2x5x5", "convt:3,k3,d2", "3x9x9", 57, 1350, 2700),
    Case("stride and dilation share a factor", "2x5x5", "convt:3,k3,s2,d2", "3x13x13", 57, 1350, 3060),
    Case("output_padding below the dilation", "2x5x5", "convt:3,k3,d3,op2", "3x13x13", 57, 1350, 2844),
    Case("everything per axis", "4x5x6", "convt:6,k3x4,s2x3,p1x0,op1x2,d1x2,g2", "6x10x24", 150, 4320, 8760),
    Case("padding crops more than the kernel", "2x6x6", "convt:2,k3,p3", "2x2x2", 38, 1296, 2472),
    Case("1-d (transposed convolution)", "16x50", "convt1d:33,k3,s2", "33x101", 1617, 79_200, 158_400),
    Case("1-d depthwise", "16x20", "convt1d:k4,s2,p1,depthwise", "16x40", 80, 1280, 2528),
    Case("3-d (transposed convolution)", "16x10x50x100", "convt3d:33,k3,s2", "33x21x101x201", 14_289, 712_800_000, 1_425_600_000),
    Case("3-d rectangular (transposed convolution)", "16x10x5x10", "convt3d:33,k3x5x2,s2x1x1,p0x4x2", "33x21x1x7", 15_873, 7_920_000, 15_776_244),
    Case("PyTorch's call (transposed convolution)", "16x12x12", "ConvTranspose2d(16,16,3,stride=2,padding=1)", "16x23x23", 2320, 331_776, 662_016),
    # --- pooling
    Case("2x2", "6x28x28", "maxpool:k2", "6x14x14", 0, 0, 3528),
    Case("bare value is the kernel", "6x28x28", "maxpool:2", "6x14x14", 0, 0, 3528),
    Case("ResNet's pool", "64x112x112", "maxpool:k3,s2,p1", "64x56x56", 0, 0, 1_605_632),
    Case("AlexNet's overlapping pool", "96x55x55", "maxpool:k3,s2", "96x27x27", 0, 0, 559_872),
    Case("ceil", "8x10x10", "maxpool:k3,s2,ceil", "8x5x5", 0, 0, 1600),
    Case("ceil, nothing to gain", "8x11x11", "maxpool:k3,s2,ceil", "8x5x5", 0, 0, 1600),
    Case("ceil drops a window that starts in the padding", "8x9x9", "avgpool:k4,s4,p2,ceil", "8x3x3", 0, 0, 1152),
    Case("ceil, k1 s2 on 10", "8x10x10", "maxpool:k1,s2,ceil", "8x5x5", 0, 0, 0),
    Case("ceil, a window larger than the input", "1x3x3", "maxpool:k4,s2,ceil", "1x1x1", 0, 0, 15),
    Case("ceil, padded", "2x7x7", "maxpool:k3,s3,p1,ceil", "2x3x3", 0, 0, 144),
    Case("dilated", "4x20x20", "maxpool:k3,s1,d3", "4x14x14", 0, 0, 6272),
    Case("dilated, ceil", "4x20x20", "maxpool:k3,s4,d2,ceil", "4x5x5", 0, 0, 800),
    Case("rectangular", "4x20x30", "maxpool:k3x2,s2x1", "4x9x29", 0, 0, 5220),
    Case("with indices", "4x20x30", "maxpool:k2,indices", "4x10x15", 0, 0, 1800),
    Case("max 1-d", "16x50", "maxpool1d:k3,s2", "16x24", 0, 0, 768),
    Case("max 1-d ceil", "16x50", "maxpool1d:k3,s2,ceil", "16x25", 0, 0, 800),
    Case("max 3-d", "16x50x44x31", "maxpool3d:k3x2x2,s2x1x2", "16x24x43x15", 0, 0, 2_724_480),
    Case("average", "16x10x10", "avgpool:k2", "16x5x5", 0, 0, 1600),
    Case("average overlapping", "16x11x11", "avgpool:k3,s2,p1", "16x6x6", 0, 0, 5184),
    Case("average without padding in the count", "16x11x11", "avgpool:k3,s2,p1,nopad", "16x6x6", 0, 0, 5184),
    Case("average ceil", "16x12x12", "avgpool:k3,s2,ceil", "16x6x6", 0, 0, 5184),
    Case("average, a divisor of its own", "16x12x12", "AvgPool2d(3,divisor_override=2)", "16x4x4", 0, 0, 2304),
    Case("average 1-d", "16x50", "avgpool1d:k3,s2", "16x24", 0, 0, 1152),
    Case("average 3-d", "16x20x22x31", "avgpool3d:k3x2x2,s2x1x2", "16x9x21x15", 0, 0, 544_320),
    # --- linear, flatten, relu
    Case("linear", "784", "linear:10", "10", 7850, 7840, 15_680),
    Case("linear without bias", "784", "linear:10,nobias", "10", 7840, 7840, 15_670),
    Case("linear on several axes", "5x16", "linear:10,nobias", "5x10", 160, 800, 1550),
    Case("linear on several axes, a batch apart", "2x5x16", "linear:10,nobias", "2x5x10", 160, 1600, 3100),
    Case("PyTorch's linear", "128", "Linear(in_features=128,out_features=64,bias=True)", "64", 8256, 8192, 16_384),
    Case("flatten", "16x5x5", "flatten", "400", 0, 0, 0),
    Case("flatten to the middle", "16x5x6", "flatten:2", "16x30", 0, 0, 0),
    Case("flatten some", "2x3x4x5", "Flatten(1,2)", "2x12x5", 0, 0, 0),
    Case("relu", "8x4x4", "relu", "8x4x4", 0, 0, 128),
    # --- chains
    Case("LeNet for colours", "3x32x32", "conv:6,k5 relu maxpool:k2 conv:16,k5 relu maxpool:k2 flatten linear:120 linear:84 linear:10", "16x10x10 16x5x5 400 120 84 10", 62_006, 651_720, 1_314_472),
    Case("three 3x3 see 7x7", "64x32x32", "conv:k3 conv:k3 conv:k3", "64x26x26", 110_784, 86_999_040, 173_998_080),
    Case("repeat", "8x16x16", "repeat:3 conv:k3,p1 relu end", "8x16x16", 1752, 442_368, 890_880),
    Case("depthwise separable", "32x56x56", "conv:k3,p1,depthwise,nobias conv:64,nobias", "64x56x56", 2336, 7_325_696, 14_350_336),
    Case("hourglass", "16x32x32", "conv:32,k3,s2,p1 relu convt:16,k4,s2,p1", "16x32x32", 12_848, 3_276_800, 6_559_680),
    Case("3-d chain", "1x16x16x16", "conv3d:4,k3 maxpool:k2 conv:8,k3 flatten linear:2", "2", 2986, 406_352, 822_308),
    Case("1-d chain", "2x64", "conv1d:4,k5,s2 relu avgpool:k2 flatten linear:3", "3", 227, 1380, 3000),
    # --- cost of the notes
    Case("the notes' layer", "100x64x64", "conv:100,k5,psame,nobias", "100x64x64", 250_000, 1_024_000_000, 2_047_590_400),
    Case("both channel counts doubled: four times", "200x64x64", "conv:200,k5,psame,nobias", "200x64x64", 1_000_000, 4_096_000_000, 8_191_180_800),
    # --- other pools
    Case("power average", "4x10x10", "LPPool2d(2,3,stride=2)", "4x4x4", 0, 0, 976),
    Case("power average, ceil", "4x10", "LPPool1d(1,3,stride=2,ceil_mode=True)", "4x5", 0, 0, 100),
    Case("power average 3-d", "2x4x5x6", "LPPool3d(2,2)", "2x2x2x3", 0, 0, 432),
    Case("adaptive average", "8x7x9", "AdaptiveAvgPool2d((3,4))", "8x3x4", 0, 0, 864),
    Case("adaptive average, an axis left alone", "8x7x9", "AdaptiveAvgPool2d((None,2))", "8x7x2", 0, 0, 560),
    Case("adaptive average grows", "2x3", "AdaptiveAvgPool1d(5)", "2x5", 0, 0, 14),
    Case("adaptive average to 1", "512x7x7", "AdaptiveAvgPool2d(1)", "512x1x1", 0, 0, 25_088),
    Case("adaptive average 3-d", "2x4x5x6", "AdaptiveAvgPool3d((2,3,4))", "2x2x3x4", 0, 0, 448),
    Case("adaptive maximum", "8x7x9", "AdaptiveMaxPool2d((3,4))", "8x3x4", 0, 0, 768),
    Case("adaptive maximum 1-d", "8x10", "AdaptiveMaxPool1d(4)", "8x4", 0, 0, 64),
    Case("global average", "8x7x9", "globalavgpool", "8x1x1", 0, 0, 504),
    Case("global maximum", "8x7x9", "globalmaxpool", "8x1x1", 0, 0, 496),
    Case("fractional maximum", "4x10x12", "FractionalMaxPool2d(2,output_size=(5,7))", "4x5x7", 0, 0, 420),
    Case("fractional maximum by ratio", "4x10x12", "FractionalMaxPool2d(3,output_ratio=0.5)", "4x5x6", 0, 0, 960),
    # --- activations
    Case("ReLU6", "4x5x6", "ReLU6()", "4x5x6", 0, 0, 240),
    Case("LeakyReLU", "4x5x6", "LeakyReLU()", "4x5x6", 0, 0, 240),
    Case("RReLU", "4x5x6", "RReLU()", "4x5x6", 0, 0, 240),
    Case("ELU", "4x5x6", "ELU()", "4x5x6", 0, 0, 360),
    Case("SELU", "4x5x6", "SELU()", "4x5x6", 0, 0, 480),
    Case("CELU", "4x5x6", "CELU()", "4x5x6", 0, 0, 720),
    Case("GELU", "4x5x6", "GELU()", "4x5x6", 0, 0, 600),
    Case("SiLU", "4x5x6", "SiLU()", "4x5x6", 0, 0, 360),
    Case("Mish", "4x5x6", "Mish()", "4x5x6", 0, 0, 480),
    Case("Sigmoid", "4x5x6", "Sigmoid()", "4x5x6", 0, 0, 360),
    Case("LogSigmoid", "4x5x6", "LogSigmoid()", "4x5x6", 0, 0, 600),
    Case("Tanh", "4x5x6", "Tanh()", "4x5x6", 0, 0, 120),
    Case("Tanhshrink", "4x5x6", "Tanhshrink()", "4x5x6", 0, 0, 240),
    Case("Hardtanh", "4x5x6", "Hardtanh()", "4x5x6", 0, 0, 240),
    Case("Hardswish", "4x5x6", "Hardswish()", "4x5x6", 0, 0, 600),
    Case("Hardsigmoid", "4x5x6", "Hardsigmoid()", "4x5x6", 0, 0, 480),
    Case("Hardshrink", "4x5x6", "Hardshrink()", "4x5x6", 0, 0, 240),
    Case("Softshrink", "4x5x6", "Softshrink()", "4x5x6", 0, 0, 600),
    Case("constant scale", "4x5x6", "scale:0.5", "4x5x6", 0, 0, 120, "by hand"),
    Case("constant shift", "4x5x6", "shift:-0.5", "4x5x6", 0, 0, 120, "by hand"),
    Case("Softplus", "4x5x6", "Softplus()", "4x5x6", 0, 0, 720),
    Case("Softsign", "4x5x6", "Softsign()", "4x5x6", 0, 0, 360),
    Case("GELU nearly", "4x5x6", "GELU('tanh')", "4x5x6", 0, 0, 1080),
    Case("Threshold", "4x5x6", "Threshold(0.1,20)", "4x5x6", 0, 0, 120),
    Case("PReLU with one slope", "4x5x6", "PReLU()", "4x5x6", 1, 0, 240),
    Case("PReLU with a slope a channel", "4x5x6", "PReLU(4)", "4x5x6", 4, 0, 240),
    Case("GLU", "8x5x6", "GLU(1)", "4x5x6", 0, 0, 360),
    Case("GLU along the last axis", "8x5x6", "GLU()", "8x5x3", 0, 0, 360),
    # --- norms, dropout, softmax
    Case("batch norm", "16x8x8", "BatchNorm2d(16)", "16x8x8", 32, 0, 2048),
    Case("batch norm without weights", "16x8x8", "BatchNorm2d(16,affine=False)", "16x8x8", 0, 0, 2048),
    Case("batch norm without running statistics", "2x16x8x8", "BatchNorm2d(16,track_running_stats=False)", "2x16x8x8", 32, 0, 14_384),
    Case("batch norm 1-d", "16x20", "BatchNorm1d(16)", "16x20", 32, 0, 640),
    Case("batch norm 3-d", "4x3x4x5", "BatchNorm3d(4)", "4x3x4x5", 8, 0, 480),
    Case("batch norm, features from the input", "16x8x8", "batchnorm2d", "16x8x8", 32, 0, 2048),
    Case("synchronised batch norm", "16x8x8", "SyncBatchNorm(16)", "16x8x8", 32, 0, 2048),
    Case("layer norm", "10x64", "LayerNorm(64)", "10x64", 128, 0, 4510),
    Case("layer norm of two axes", "4x6x8", "LayerNorm((6,8))", "4x6x8", 96, 0, 1356),
    Case("layer norm without bias", "4x6x8", "LayerNorm(8,bias=False)", "4x6x8", 8, 0, 1224),
    Case("group norm", "16x8x8", "GroupNorm(4,16)", "16x8x8", 32, 0, 7180),
    Case("group norm without weights", "16x8x8", "GroupNorm(4,16,affine=False)", "16x8x8", 0, 0, 5132),
    Case("instance norm", "16x8x8", "InstanceNorm2d(16)", "16x8x8", 0, 0, 5168),
    Case("instance norm with weights", "16x8", "InstanceNorm1d(16,affine=True)", "16x8", 32, 0, 944),
    Case("root mean square norm", "10x64", "RMSNorm(64)", "10x64", 64, 0, 2590),
    Case("local response norm", "96x27x27", "LocalResponseNorm(5)", "96x27x27", 0, 0, 699_840),
    Case("dropout", "16x8x8", "Dropout(0.2)", "16x8x8", 0, 0, 0),
    Case("dropout of channels", "16x8x8", "Dropout2d(0.2)", "16x8x8", 0, 0, 0),
    Case("alpha dropout", "16x8x8", "AlphaDropout()", "16x8x8", 0, 0, 0),
    Case("alpha dropout of channels", "16x8x8", "FeatureAlphaDropout()", "16x8x8", 0, 0, 0),
    Case("softmax", "20", "linear:10 Softmax(1)", "10", 210, 200, 448),
    Case("softmax of channels", "10x4x4", "Softmax(1)", "10x4x4", 0, 0, 768),
    Case("softmax from behind", "10x4x6", "Softmax(-1)", "10x4x6", 0, 0, 1120),
    Case("softmin", "10x4x6", "Softmin(1)", "10x4x6", 0, 0, 1152),
    Case("log-softmax", "10x4x6", "LogSoftmax(1)", "10x4x6", 0, 0, 1176),
    Case("softmax of pixels", "10x4x6", "Softmax2d()", "10x4x6", 0, 0, 1152),
    # --- shapes, shuffles, padding, upsampling
    Case("unflatten", "400x1x1", "flatten Unflatten(1,(16,5,5))", "16x5x5", 0, 0, 0),
    Case("reshape", "16x5x5", "reshape:25x16", "25x16", 0, 0, 0),
    Case("identity", "4x5x6", "Identity()", "4x5x6", 0, 0, 0),
    Case("pixel shuffle", "16x5x6", "PixelShuffle(2)", "4x10x12", 0, 0, 0),
    Case("pixel unshuffle", "4x6x8", "PixelUnshuffle(2)", "16x3x4", 0, 0, 0),
    Case("channel shuffle", "8x5x6", "ChannelShuffle(4)", "8x5x6", 0, 0, 0),
    Case("unfold", "3x10x12", "Unfold((4,5))", "60x56", 0, 0, 0),
    Case("unfold with everything", "3x10x12", "Unfold(3,dilation=2,padding=1,stride=2)", "27x20", 0, 0, 0),
    Case("fold", "3x10x12", "Unfold((4,5)) Fold((10,12),(4,5))", "3x10x12", 0, 0, 3000),
    Case("zero padding", "3x5x6", "ZeroPad2d((1,2,3,4))", "3x12x9", 0, 0, 0),
    Case("negative padding crops", "3x5x6", "ZeroPad2d((-1,0,2,-2))", "3x5x5", 0, 0, 0),
    Case("constant padding", "3x5x6", "ConstantPad2d(2,1.5)", "3x9x10", 0, 0, 0),
    Case("reflected padding", "3x5x6", "ReflectionPad2d((1,2,3,4))", "3x12x9", 0, 0, 0),
    Case("replicated padding", "3x5", "ReplicationPad1d((3,1))", "3x9", 0, 0, 0),
    Case("circular padding", "3x4x5x6", "CircularPad3d((1,2,3,0,1,2))", "3x7x8x9", 0, 0, 0),
    Case("padding by name", "3x5x6", "pad:p1,reflect", "3x7x8", 0, 0, 0, PAD_TORCH),
    Case("upsampling to twice", "8x5x6", "Upsample(scale_factor=2)", "8x10x12", 0, 0, 0),
    Case("upsampling to a size", "8x5x6", "Upsample(size=(7,11))", "8x7x11", 0, 0, 0),
    Case("upsampling by a fraction", "8x5x7", "Upsample(scale_factor=1.5)", "8x7x10", 0, 0, 0),
    Case("bilinear", "8x5x6", "Upsample(scale_factor=2,mode='bilinear')", "8x10x12", 0, 3840, 6720),
    Case("bicubic", "8x5x6", "Upsample(scale_factor=2,mode='bicubic',align_corners=True)", "8x10x12", 0, 15_360, 29_760),
    Case("trilinear", "1x2x3x4x5", "Upsample(scale_factor=2,mode='trilinear')", "1x2x6x8x10", 0, 7680, 14_400),
    Case("nearest-exact", "8x5x6", "Upsample(scale_factor=2,mode='nearest-exact')", "8x10x12", 0, 0, 0),
    Case("area", "8x6x7", "Upsample(size=(4,5),mode='area')", "8x4x5", 0, 0, 704),
    Case("upsampling class, nearest", "8x5x6", "UpsamplingNearest2d(scale_factor=3)", "8x15x18", 0, 0, 0),
    Case("upsampling class, bilinear", "8x5x6", "UpsamplingBilinear2d(size=(9,9))", "8x9x9", 0, 2592, 4536),
    # --- whole networks
    Case("AlexNet's features", "3x224x224", "conv:64,k11,s4,p2 relu maxpool:k3,s2 conv:192,k5,p2 relu maxpool:k3,s2 conv:384,k3,p1 relu conv:256,k3,p1 relu conv:256,k3,p1 relu maxpool:k3,s2", "256x6x6", 2_469_696, 655_566_528, 1_312_324_608),
    Case("DCGAN's generator", "100x1x1", "convt:512,k4,nobias batchnorm relu convt:256,k4,s2,p1,nobias batchnorm relu convt:128,k4,s2,p1,nobias batchnorm relu convt:64,k4,s2,p1,nobias batchnorm relu convt:3,k4,s2,p1,nobias tanh", "3x64x64", 3_576_704, 104_628_224, 209_475_060),
    Case("a classifier's end", "512x7x7", "globalavgpool flatten dropout:0.5 linear:1000 softmax:1", "1000", 513_000, 512_000, 1_054_086),
    # --- sequences: steps, weights and gates by hand, parameters by torch too
    Case("LSTM", "10x8", "lstm:16", "10x16", 1664, 15_360, 33_760, BY_HAND),
    Case("LSTM of two layers in both directions", "4x10x8", "LSTM(8,16,num_layers=2,batch_first=True,bidirectional=True)", "4x10x32", 9728, 368_640, 785_920, BY_HAND),
    Case("GRU", "10x8", "gru:16", "10x16", 1248, 11_520, 25_440, BY_HAND),
    Case("plain recurrent layer without bias", "10x8", "rnn:16,nobias", "10x16", 384, 3840, 7680, BY_HAND),
    Case("steps before the batch", "10x4x8", "GRU(8,16)", "10x4x16", 1248, 46_080, 101_760, BY_HAND),
    Case("multi-head attention", "10x64", "mha:64,h8", "10x64", 16_640, 176_640, 356_480, BY_HAND),
    Case("attention", "10x64", "@k attention:8,@k,@k", "10x64", 0, 12_800, 28_800, BY_HAND),
    Case("keys and values of fewer heads", "10x64", "@x linear:16,nobias @k from:@x attention:8,kv2,@k,@k", "10x16 10x64", 1024, 23_040, 49_120, BY_HAND),
    Case("products of rows", "3x5x7", "@a permute:0x1x3x2 @b from:@a matmul:@b", "3x5x5", 0, 525, 975, BY_HAND),
    Case("words", "12", "Embedding(1000,64)", "12x64", 64_000, 0, 0, BY_HAND),
    Case("words and a recurrent layer", "12", "embedding:8,n50 gru:16", "12x8 12x16", 1648, 13_824, 30_528, BY_HAND),
    # --- joins and wiring: by hand
    Case("residual", "8x16x16", "@in conv:k3,p1 relu add:@in", "8x16x16", 584, 147_456, 299_008, BY_HAND),
    Case("squeeze and excite", "8x6x6", "@x globalavgpool conv:2,k1 relu conv:8,k1 sigmoid mul:@x", "8x6x6", 42, 32, 666, BY_HAND),
    Case("dense connection", "4x8x8", "@a conv:6,k3,p1 concat:@a", "10x8x8", 222, 13_824, 27_648, BY_HAND),
    Case("crop to a smaller one", "4x9x9", "@big maxpool:2 @small from:@big crop:@small", "4x4x4", 0, 0, 192, BY_HAND),
    Case("unpooling by the indices", "4x8x8", "maxpool:k2,indices @p maxunpool:k2,@p.1", "4x8x8", 0, 0, 192, BY_HAND),
    Case("axes in another order", "8x5x6", "permute:0x2x3x1", "5x6x8", 0, 0, 0, BY_HAND),
    Case("two branches", "4x8x8", "@a conv:2,k1 @b from:@a conv:3,k3,p1 concat:@b", "5x8x8", 121, 7424, 14_848, BY_HAND),
)

REFUSALS = (
    Refusal("kernel too large", "3x4x4", "conv:8,k7", 1, "layer 0 (conv): kernel 7 is larger than the padded input 4 (height); a kernel_size of at most 4 fits", "k7", REFUSES),
    Refusal("kernel too large on one axis", "3x9x4", "conv:8,k3x7", 1, "layer 0 (conv): kernel 7 is larger than the padded input 4 (width); a kernel_size of at most 4 fits", "k3x7", REFUSES),
    Refusal("dilation makes it too large", "3x8x8", "conv:8,k3,d4", 1, "layer 0 (conv): kernel 3 with dilation 4 spans 9, which is larger than the padded input 8 (height); a kernel_size of at most 2 fits", "k3", REFUSES),
    Refusal("padding is not enough", "3x4x4", "conv:8,k7,p1", 1, "layer 0 (conv): kernel 7 is larger than the padded input 6 (height); a kernel_size of at most 6 fits", "k7", REFUSES),
    Refusal("1-d kernel too large", "3x4", "conv1d:8,k7", 1, "layer 0 (conv): kernel 7 is larger than the padded input 4 (length); a kernel_size of at most 4 fits", "k7", REFUSES),
    Refusal("3-d kernel too large", "3x4x4x4", "conv3d:8,k2x2x7", 1, "layer 0 (conv): kernel 7 is larger than the padded input 4 (width); a kernel_size of at most 4 fits", "k2x2x7", REFUSES),
    Refusal("wrong channels", "3x8x8", "Conv2d(4,8,3)", 1, "layer 0 (conv): in_channels is 4, but the input 3x8x8 has 3 channels", "4", REFUSES),
    Refusal("wrong channels in the middle", "3x8x8", "conv:4,k3 Conv2d(8,8,3)", 1, "layer 1 (conv): in_channels is 8, but the input 4x6x6 has 4 channels", "8", REFUSES),
    Refusal("groups do not divide", "3x8x8", "Conv2d(4,8,3,groups=3)", 2, "in_channels is 4, but must be divisible by groups (3)", "4", REFUSES),
    Refusal("groups do not divide the input", "4x8x8", "conv:9,k3,g3", 1, "layer 0 (conv): groups is 3, which does not divide the 4 input channels", "g3", REFUSES),
    Refusal("groups do not divide the output", "6x8x8", "conv:4,k3,g3", 2, "out_channels is 4, but must be divisible by groups (3)", "4", REFUSES),
    Refusal("kernel 0", "3x8x8", "conv:8,k0", 2, "kernel_size is 0, but must be at least 1", "k0", REFUSES),
    Refusal("stride 0", "3x8x8", "conv:8,k3,s0", 2, "stride is 0, but must be at least 1", "s0", REFUSES),
    Refusal("dilation 0", "3x8x8", "conv:8,k3,d0", 2, "dilation is 0, but must be at least 1", "d0", REFUSES),
    Refusal("negative padding", "3x8x8", "conv:8,k3,p-1", 2, "padding is -1, but must be at least 0", "p-1", REFUSES),
    Refusal("same with a stride", "3x8x8", "conv:8,k3,s2,psame", 2, "padding is same, but must be a number or same_upper when the stride is not 1", "psame", REFUSES),
    Refusal("a padding word of nobody", "3x8x8", "conv:8,k3,padding=some", 2, "padding is some, but must be one of valid, same, same_upper, same_lower, causal, full", "padding=some", REFUSES),
    Refusal("a padding mode of nobody", "3x8x8", "conv:8,k3,padding_mode=mirror", 2, "padding_mode is mirror, but must be one of zeros, reflect, replicate, circular", "padding_mode=mirror", REFUSES),
    Refusal("reflect as large as the input", "3x4x4", "conv:8,k3,p4,padding_mode=reflect", 1, "layer 0 (conv): reflect padding of 4 must be smaller than the input 4 (height)", "p4", REFUSES),
    Refusal("circular larger than the input", "3x4x4", "conv:8,k3,p5,padding_mode=circular", 1, "layer 0 (conv): circular padding of 5 must be at most the input 4 (height)", "p5", REFUSES),
    Refusal("kernel of three numbers", "3x8x8", "conv2d:8,k3x3x3", 2, "kernel_size is 3x3x3, but must be one number, or 2, one for each axis", "k3x3x3", REFUSES),
    Refusal("output_padding too large", "8x8x8", "convt:4,k3,s2,op2", 1, "layer 0 (convt): output_padding 2 must be smaller than the stride 2 or the dilation 1 (height)", "op2", REFUSES),
    Refusal("nothing left", "8x2x2", "convt:4,k2,p2", 1, "layer 0 (convt): padding leaves an output of -1 (height), but it must be at least 1", "p2", REFUSES),
    Refusal("transposed, wrong channels", "3x8x8", "ConvTranspose2d(8,4,3)", 1, "layer 0 (convt): in_channels is 8, but the input 3x8x8 has 3 channels", "8", REFUSES),
    Refusal("transposed padding mode", "8x8x8", "convt:4,k3,padding_mode=reflect", 2, "padding_mode is reflect, but must be one of zeros", "padding_mode=reflect", REFUSES),
    Refusal("output_size out of reach", "8x8x8", "convt:4,k3,s2,os19", 1, "layer 0 (convt): output_size 19 is out of reach: 17 to 18 can be had (height)", "os19", REFUSES),
    Refusal("pool padding above half", "4x8x8", "maxpool:k2,s2,p2", 2, "padding is 2, but must be at most half of the kernel_size 2", "p2", REFUSES),
    Refusal("average pool padding above half", "4x8x8", "avgpool:k3,p2", 2, "padding is 2, but must be at most half of the kernel_size 3", "p2", REFUSES),
    Refusal("pool larger than the input", "4x3x3", "maxpool:k4", 1, "layer 0 (maxpool): kernel 4 is larger than the padded input 3 (height); a kernel_size of at most 3 fits", "k4", REFUSES),
    Refusal("pool larger than the input, one axis", "4x9x3", "avgpool:k4", 1, "layer 0 (avgpool): kernel 4 is larger than the padded input 3 (width); a kernel_size of at most 3 fits", "k4", REFUSES),
    Refusal("pool, stride 0", "4x8x8", "maxpool:k2,s0", 2, "stride is 0, but must be at least 1", "s0", REFUSES),
    Refusal("pool needs a kernel", "4x8x8", "maxpool", 2, "maxpool needs kernel_size; write maxpool:2", "maxpool", REFUSES),
    Refusal("divisor 0", "4x8x8", "avgpool:k2,divisor_override=0", 2, "divisor_override is 0, but must be at least 1", "divisor_override=0", REFUSES),
    Refusal("linear, wrong features", "3x32x32", "Linear(100,10)", 1, "layer 0 (linear): in_features is 100, but the last axis of the input 3x32x32 has 32", "100", REFUSES),
    Refusal("linear forgot to flatten", "16x5x5", "Linear(400,10)", 1, "layer 0 (linear): in_features is 400, but the last axis of the input 16x5x5 has 5; a flatten before it would fit", "400", REFUSES),
    Refusal("LeNet with a wrong linear", "3x32x32", "conv:6,k5 maxpool:k2 conv:16,k5 maxpool:k2 flatten Linear(256,10)", 1, "layer 5 (linear): in_features is 256, but the last axis of the input 400 has 400", "256", REFUSES),
    Refusal("flatten from an axis that is not there", "3x8x8", "flatten:5", 1, "layer 0 (flatten): start_dim is 5, but the input 3x8x8 has axes -4 to 3, the batch counted", "5", REFUSES),
    Refusal("flatten backwards", "3x8x8", "Flatten(3,1)", 1, "layer 0 (flatten): start_dim 3 comes after end_dim 1", "3", REFUSES),
    Refusal("unknown key", "3x32x32", "conv:8,kernal=3", 2, "unknown key kernal for conv; did you mean 'kernel_size'?", "kernal=3", GRAMMAR),
    Refusal("unknown kind", "3x32x32", "cnv:8", 2, "unknown layer cnv; did you mean 'conv'?", "cnv:8", GRAMMAR),
    Refusal("unknown keyword of a call", "3x32x32", "Conv2d(3,8,kernelsize=3)", 2, "unknown key kernelsize for conv; did you mean 'kernel_size'?", "kernelsize=3", REFUSES),
    Refusal("a key twice", "3x32x32", "conv:8,k3,k5", 2, "kernel_size is given twice", "k5", GRAMMAR),
    Refusal("a key without a value", "3x32x32", "conv:8,k", 2, "k needs a value, such as k2", "k", GRAMMAR),
    Refusal("a second bare value", "3x32x32", "conv:8,3", 2, "3 has no key; only one bare value is read, and out_channels comes first", "3", GRAMMAR),
    Refusal("an empty argument", "3x32x32", "conv:8,,k3", 2, "an argument of conv is empty", "", GRAMMAR),
    Refusal("an open bracket", "3x32x32", "Conv2d(3,8", 2, "Conv2d( is not closed", "Conv2d(3,8", GRAMMAR),
    Refusal("too many values", "3x32x32", "ReLU(True,1)", 2, "relu takes at most 1 values", "1", REFUSES),
    Refusal("a value after a name", "3x32x32", "Conv2d(3,out_channels=8,3)", 2, "a value without a name comes after one with a name", "3", GRAMMAR),
    Refusal("code is not run", "3x32x32", "Conv2d(3,8,abs(-3))", 2, "abs(-3) is no value; write a number, a tuple or a word", "abs(-3)", GRAMMAR),
    Refusal("a size of 0", "3x0x32", "conv:8", 2, "the input 3x0x32 has a size of 0; every size is at least 1", "3x0x32", GRAMMAR),
    Refusal("too many numbers", "1x1x3x32x32", "conv2d:8", 2, "the input has 5 numbers, but layers over 2 spatial axes take 2 sizes, 3 with channels, or 4 with channels and batch", "1x1x3x32x32", REFUSES),
    Refusal("too few numbers", "8x8", "conv3d:8", 2, "the input has 2 numbers, but layers over 3 spatial axes take 3 sizes, 4 with channels, or 5 with channels and batch", "8x8", GRAMMAR),
    Refusal("not a size", "3x32x32", "conv:8,k3x", 2, "3x is no number; sizes are written 3, 3x5 or, before and after, 1+2", "k3x", GRAMMAR),
    Refusal("repeat without an end", "3x8x8", "repeat:2 relu", 2, "repeat has no end", "repeat:2", GRAMMAR),
    Refusal("an end of nothing", "3x8x8", "relu end", 2, "end has no repeat before it", "end", GRAMMAR),
    Refusal("repeat no times", "3x8x8", "repeat:0 relu end", 2, "repeat needs a count of at least 1, such as repeat:3", "repeat:0", GRAMMAR),
    Refusal("no such tensor", "3x8x8", "relu from:@skip", 2, "no tensor is named @skip; name a tensor with @name before it is used", "from:@skip", GRAMMAR),
    Refusal("a design space, not yet", "3x32x32", "conv:8,k3/5", 2, "3/5 is a set or a range of designs, which is not there yet; give one number", "k3/5", GRAMMAR),
    Refusal("a range, not yet", "3x32x32", "conv:32..512", 2, "32..512 is a set or a range of designs, which is not there yet; give one number", "32..512", GRAMMAR),
    Refusal("nothing after the input", "3x32x32", "", 2, "there is no layer after the input; write one, such as conv:64,k3", None, GRAMMAR),
    Refusal("adaptive pool to 0", "4x8x8", "AdaptiveAvgPool2d(0)", 2, "output_size is 0, but must be at least 1", "0", BY_HAND),
    Refusal("adaptive pool to three sizes", "4x8x8", "AdaptiveAvgPool2d((1,2,3))", 2, "output_size is 1x2x3, but must be one number or none, or 2, one for each axis", "(1,2,3)", REFUSES),
    Refusal("power 0", "4x8x8", "LPPool2d(0,2)", 2, "norm_type is 0, but must be other than 0", "0", BY_HAND),
    Refusal("fractional pool asks for too many", "4x8x8", "FractionalMaxPool2d(3,output_size=7)", 1, "layer 0 (fractionalmaxpool): output_size asks for 7 windows of 3 in 8 (height); 1 to 6 fit", "output_size=7", REFUSES),
    Refusal("fractional pool of nothing", "4x8x8", "FractionalMaxPool2d(3)", 2, "needs output_size or output_ratio", "FractionalMaxPool2d(3)", REFUSES),
    Refusal("fractional ratio of 1", "4x8x8", "FractionalMaxPool2d(3,output_ratio=1.0)", 2, "output_ratio is 1.0, but must be between 0 and 1", "output_ratio=1.0", REFUSES),
    Refusal("batch norm, wrong channels", "4x8x8", "BatchNorm2d(8)", 1, "layer 0 (batchnorm): num_features is 8, but the input 4x8x8 has 4 channels", "8", REFUSES),
    Refusal("batch norm 1-d reads three numbers with the batch", "4x8x8", "BatchNorm1d(4)", 1, "layer 0 (batchnorm): num_features is 4, but the input 8x8 has 8 channels", "4", REFUSES),
    Refusal("group norm, wrong channels", "4x8x8", "GroupNorm(2,8)", 1, "layer 0 (groupnorm): num_channels is 8, but the input 4x8x8 has 4 channels", "8", REFUSES),
    Refusal("group norm does not divide", "4x8x8", "GroupNorm(3,4)", 2, "num_channels is 4, but must be divisible by num_groups (3)", "4", REFUSES),
    Refusal("layer norm, wrong shape", "4x8x8", "LayerNorm(4)", 1, "layer 0 (layernorm): normalized_shape is 4, but the input 4x8x8 does not end in it", "4", REFUSES),
    Refusal("instance norm of one pixel", "4x1x1", "InstanceNorm2d(4)", 1, "layer 0 (instancenorm): needs more than one spatial element to normalise, but 4x1x1 came in", "InstanceNorm2d(4)", REFUSES),
    Refusal("softmax along an axis that is not there", "4x8x8", "Softmax(4)", 1, "layer 0 (softmax): dim is 4, but the input 4x8x8 has axes -4 to 3, the batch counted", "4", REFUSES),
    Refusal("GLU of an odd number", "3x8x8", "GLU(1)", 1, "layer 0 (glu): dim 1 has 3 elements, but must be even", "1", REFUSES),
    Refusal("PReLU, wrong slopes", "4x8x8", "PReLU(3)", 1, "layer 0 (prelu): num_parameters is 3, but the input 4x8x8 has 4 channels; 1 or 4 fits", "3", REFUSES),
    Refusal("dropout above 1", "4x8x8", "Dropout(1.5)", 2, "p is 1.5, but must be between 0 and 1", "1.5", REFUSES),
    Refusal("hard limits the wrong way round", "4x8x8", "Hardtanh(1,-1)", 2, "max_val is -1, but must be larger than min_val (1)", "-1", REFUSES),
    Refusal("pixel shuffle does not divide", "6x8x8", "PixelShuffle(2)", 1, "layer 0 (pixelshuffle): upscale_factor is 2, but its square does not divide the 6 channels", "2", REFUSES),
    Refusal("pixel unshuffle does not divide", "4x7x8", "PixelUnshuffle(2)", 1, "layer 0 (pixelunshuffle): downscale_factor is 2, which does not divide the height 7", "2", REFUSES),
    Refusal("channel shuffle does not divide", "6x8x8", "ChannelShuffle(4)", 1, "layer 0 (channelshuffle): groups is 4, which does not divide the 6 channels", "4", REFUSES),
    Refusal("unflatten to another number", "8x4x4", "Unflatten(1,(3,3))", 1, "layer 0 (unflatten): unflattened_size 3x3 does not hold 8 elements", "(3,3)", REFUSES),
    Refusal("unfold larger than the input", "3x4x4", "Unfold(5)", 1, "layer 0 (unfold): kernel 5 is larger than the padded input 4 (height); a kernel_size of at most 4 fits", "5", REFUSES),
    Refusal("fold of other columns", "3x10x12", "Unfold(3) Fold((9,12),3)", 1, "layer 1 (fold): output_size 9x12 has 7x10 = 70 windows, but 80 columns came in", "(9,12)", REFUSES),
    Refusal("reflection as large as the input", "3x4x4", "ReflectionPad2d(4)", 1, "layer 0 (reflectionpad): reflect padding of 4 must be smaller than the input 4 (height)", "4", REFUSES),
    Refusal("padding that crops everything", "3x4x4", "ZeroPad2d(-3)", 1, "layer 0 (zeropad): padding -3+-3 leaves nothing of 4 (height)", "-3", REFUSES),
    Refusal("upsampling to nothing", "3x4x4", "Upsample(scale_factor=0.1)", 1, "layer 0 (upsample): scale_factor 0.1 leaves an output of 0 (height), but it must be at least 1", "scale_factor=0.1", REFUSES),
    Refusal("upsampling by two ways", "3x4x4", "Upsample(size=3,scale_factor=2)", 2, "size and scale_factor are both given; keep one of them", "scale_factor=2", REFUSES),
    Refusal("upsampling in a mode of other axes", "3x4x4", "Upsample(scale_factor=2,mode='trilinear')", 1, "layer 0 (upsample): mode trilinear is not for 2 spatial axes (3x4x4); nearest, nearest-exact, bilinear, bicubic, area fit", "mode='trilinear'", REFUSES),
    Refusal("a sum of what does not fit", "4x8x8", "@a conv:4,k3 add:@a", 1, "layer 1 (add): 4x6x6 and 4x8x8 do not match: from the last axis on, sizes must be the same or 1; here come 4x6x6 from 0 (conv) and 4x8x8 from the input", "@a", GRAMMAR),
    Refusal("a sum of one", "4x8x8", "relu add", 2, "add takes at least 2 inputs, but 1 came in; name one with @a and write add:@a", "add", GRAMMAR),
    Refusal("channels side by side that do not fit", "4x8x8", "@a conv:4,k3 concat:@a", 1, "layer 1 (concat): 4x6x6 and 4x8x8 differ in another axis than dim 1; here come 4x6x6 from 0 (conv) and 4x8x8 from the input", "@a", GRAMMAR),
    Refusal("unpooling without indices", "4x8x8", "maxpool:k2 maxunpool:k2", 2, "maxunpool takes 2 inputs, but 1 came in; name one with @a and write maxunpool:@a", "maxunpool:k2", GRAMMAR),
)


class Gradients(NamedTuple):
    """MACs forward and backward, without and with the gradient of the network's own input."""

    id: str
    input: str
    layers: str
    macs: int
    backward: int
    backward_with_input: int
    truth: str


GRADIENTS = (
    Gradients("depthwise: one forward more, or two", "32x16x16", "conv:k3,p1,depthwise,nobias", 73_728, 73_728, 147_456, FIELD),
    Gradients("a first convolution", "3x32x32", "conv:8,k3,p1", 221_184, 221_184, 442_368, "torch 2.13's flop counter"),
    Gradients("the second layer owes both", "3x32x32", "conv:8,k3,p1 relu conv:4,k3", 480_384, 739_584, 960_768, "torch 2.13's flop counter"),
    Gradients("two linear layers", "64", "linear:32 relu linear:10", 2368, 2688, 4736, "torch 2.13's flop counter"),
    Gradients("nothing to learn", "3x8x8", "relu maxpool:k2", 0, 0, 0, BY_HAND),
    Gradients("transposed", "8x8x8", "convt:4,k3,s2,p1,op1", 18_432, 18_432, 36_864, BY_HAND),
)


class Kept(NamedTuple):
    """The bytes that training in float32 keeps, and those of a forward pass, each tensor once."""

    id: str
    input: str
    layers: str
    saved: int
    total: int
    truth: str


KEPT = (
    Kept("autograd's own count", "8x3x32x32", "conv:16,k3,p1" + 20 * " relu", 10_585_792, 11_110_144, "torch 2.13: saved_tensors_hooks; total by hand"),
    Kept("a first linear layer keeps its input alone", "16x5x5", "flatten linear:10", 1600, 17_680, "torch 2.13: saved_tensors_hooks; total by hand"),
    Kept("nothing learns, nothing is kept", "3x8x8", "maxpool:k2 relu", 0, 1152, "torch 2.13: saved_tensors_hooks; total by hand"),
    Kept("nothing is kept before what learns", "3x8x8", "maxpool:k2 conv:4,k3", 624, 1472, "torch 2.13: saved_tensors_hooks; total by hand"),
    Kept("a view costs nothing", "3x8x8", "conv:4,k3 flatten linear:10", 7536, 7632, "torch 2.13: saved_tensors_hooks; total by hand"),
)


class Seconds(NamedTuple):
    """The time for a million samples."""

    id: str
    convention: str
    speed: float
    hours: float
    truth: str


TEN_LAYERS = "100x64x64", "repeat:10 conv:100,k5,psame,nobias end"
TIMES = (
    Seconds("at 0.15 T", "macs", 0.15e12, 18.963, NOTES),
    Seconds("at 12 T", "macs", 12e12, 14.2222 / 60, NOTES),
    Seconds("at 0.15 T, exact FLOPs", "exact", 0.15e12, 37.918, BY_HAND),
)


class Run(NamedTuple):
    """Layers on an array, with the weight of the first one (None: it has none)."""

    id: str
    layers: str
    input: object
    weight: object
    answer: object
    truth: str
    flip: bool = False


X = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
K = [[0, 1], [2, 3]]
X2 = [X, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]]
K2 = [K, [[1, 2], [3, 4]]]
K3 = [K2, [[[1, 2], [3, 4]], [[2, 3], [4, 5]]], [[[2, 3], [4, 5]], [[3, 4], [5, 6]]]]
EDGES = [[1, 1, 0, 0, 0, 0, 1, 1]] * 6
BLOCKS = [[1, 3, 2, 8], [4, 2, 5, 1], [9, 0, 7, 2], [6, 5, 3, 4]]

RUNS = (
    Run("cross-correlation", "conv", X, K, [[19, 25], [37, 43]], NOTES),
    Run("several input channels", "conv", X2, K2, [[56, 72], [104, 120]], NOTES),
    Run("several output channels", "conv", X2, K3,
        [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]], NOTES),
    Run("edge detection", "conv", EDGES, [[1, -1]], [[0, 1, 0, 0, 0, -1, 0]] * 6, NOTES),
    Run("edge detection, image transposed", "conv", [list(column) for column in zip(*EDGES, strict=True)], [[1, -1]],
        [[0] * 5] * 8, NOTES),
    Run("true convolution", "conv", X, K, [[5, 11], [23, 29]], BY_HAND, flip=True),
    Run("dilated", "conv:d2", X, K, [[38]], BY_HAND),
    Run("strided", "conv:s2", BLOCKS, K, [[17, 21], [27, 20]], BY_HAND),
    Run("padded", "conv:p1", [[1]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[5]], BY_HAND),
    Run("padded to full turns the kernel", "conv:pfull", [[1]], [[1, 2], [3, 4]], [[4, 3], [2, 1]], BY_HAND),
    Run("same, even kernel: one zero after", "conv1d:psame", [1, 2, 3], [1, 10], [21, 32, 3], BY_HAND),
    Run("same_lower: one zero before", "conv1d:psame_lower", [1, 2, 3], [1, 10], [10, 21, 32], BY_HAND),
    Run("causal", "conv1d:pcausal", [1, 2, 3], [1, 10, 100], [100, 210, 321], BY_HAND),
    Run("reflect", "conv1d:p1,padding_mode=reflect", [1, 2, 3], [1, 0, 10], [22, 31, 22], BY_HAND),
    Run("replicate", "conv1d:p1,padding_mode=replicate", [1, 2, 3], [1, 0, 10], [21, 31, 32], BY_HAND),
    Run("circular", "conv1d:p1,padding_mode=circular", [1, 2, 3], [1, 0, 10], [23, 31, 12], BY_HAND),
    Run("transposed", "convt", K, K, [[0, 0, 1], [0, 4, 6], [4, 12, 9]], NOTES),
    Run("transposed, stride 2", "convt:s2", K, K, [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]], NOTES),
    Run("transposed, cropped", "convt:p1", K, K, [[4]], NOTES),
    Run("transposed, output_padding", "convt1d:s2,op1", [1, 2], [1], [1, 0, 2, 0], BY_HAND),
    Run("max pooling", "maxpool:k2", BLOCKS, None, [[4, 8], [9, 7]], NOTES),
    Run("max pooling, stride 1", "maxpool:k2,s1", X, None, [[4, 5], [7, 8]], NOTES),
    Run("max pooling does not see its padding", "maxpool:k3,s3,p1", [[-5]], None, [[-5]], BY_HAND),
    Run("max pooling, ceil", "maxpool:k2,ceil", X, None, [[4, 5], [7, 8]], BY_HAND),
    Run("average pooling, stride 1", "avgpool:k2,s1", X, None, [[2, 3], [5, 6]], NOTES),
    Run("average pooling counts its padding", "avgpool:k2,p1", [[4, 8], [12, 16]], None, [[1, 2], [3, 4]], BY_HAND),
    Run("average pooling without its padding", "avgpool:k2,p1,nopad", [[4, 8], [12, 16]], None, [[4, 8], [12, 16]],
        BY_HAND),
    Run("average pooling, a divisor of its own", "avgpool:k2,divisor_override=2", [[4, 8], [12, 16]], None, [[20]],
        BY_HAND),
    Run("average pooling, ceil: what sticks out is not counted", "avgpool1d:k2,ceil", [1, 3, 5], None, [2, 5], BY_HAND),
    Run("linear", "linear", [1, 2], [[1, 10], [3, 5]], [21, 13], BY_HAND),
    Run("relu", "relu", [[-1, 2], [0, -3]], None, [[0, 2], [0, 0]], BY_HAND),
    Run("a chain", "conv relu maxpool:k2", X, [[-1, 1], [1, -1]], [[0]], BY_HAND),
)


class Field(NamedTuple):
    """The input elements that one output element sees, at the place where it sees most."""

    id: str
    layers: str
    field: str
    truth: str


FIELDS = (
    Field("a kernel of 3x7", "conv:k3x7", "3x7", GRADIENT),
    Field("two kernels", "conv:k3 conv:k3", "5x5", GRADIENT),
    Field("three kernels", "conv:k3 conv:k3 conv:k3", "7x7", GRADIENT),
    Field("dilations of 1, 2, 4", "conv:k3 conv:k3,d2 conv:k3,d4", "15x15", GRADIENT),
    Field("ResNet's stem", "conv:k7,s2,p3 maxpool:k3,s2,p1", "11x11", GRADIENT),
    Field("stride between", "conv:k3,s2 conv:k3", "7x7", GRADIENT),
    Field("down, up, and a kernel: the worst pixel", "conv:k3,s2 convt:k4,s2 conv:k3", "7x7", GRADIENT),
    Field("up by 2", "convt:k2,s2", "1x1", GRADIENT),
    Field("up with overlap", "convt:k4,s2,p1", "2x2", GRADIENT),
    Field("LeNet's features", "conv:k5 maxpool:k2 conv:k5 maxpool:k2", "16x16", GRADIENT),
    Field("1x1 sees one", "conv:k1 conv:k1", "1x1", GRADIENT),
)


class Answer(NamedTuple):
    """A command as it is typed: the exit status, and what it prints or how its error begins."""

    id: str
    arguments: tuple[str, ...]
    status: int
    printed: str
    truth: str


LENET = ("conv:6,k5", "relu", "maxpool:k2", "conv:16,k5", "relu", "maxpool:k2", "flatten", "linear:120", "linear:84", "linear:10")
ANSWERS = (
    Answer("a layer", ("shape", "3x224x224", "conv:64,k7,s2,p3", "-q"), 0, "64x112x112", NOTES),
    Answer("options on sizes alone", ("shape", "224", "-k", "7", "-s", "2", "-p", "3", "-q"), 0, "112x112", NOTES),
    Answer("PyTorch's text", ("flops", "3x224x224", "Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)",
           "--get", "totals.flops"), 0, "235225088", TORCH),
    Answer("a billion", ("flops", "100x64x64", "conv:100,k5,psame,nobias", "-q"), 0, "1024000000", NOTES),
    Answer("a chain", ("shape", "3x32x32", *LENET, "-q"), 0, "10", TORCH),
    Answer("transposed", ("flops", "8x8x8", "convt:4,k3,s2,p1,op1", "-q"), 0, "18432", FIELD),
    Answer("two kernels as one", ("compose", "conv:k3", "conv:k3", "-q"), 0, "5x5", NOTES),
    Answer("cross-correlation", ("run", "[[0,1,2],[3,4,5],[6,7,8]]", "-w", "[[0,1],[2,3]]"), 0, "19\t25\n37\t43", NOTES),
    Answer("several input channels", ("run", str(X2), "-w", str(K2)), 0, "56\t72\n104\t120", NOTES),
    Answer("too large a kernel", ("shape", "3x4x4", "conv:8,k7"), 1,
           "error: layer 0 (conv): kernel 7 is larger than the padded input 4 (height)", REFUSES),
    Answer("a typo", ("shape", "3x32x32", "conv:8,kernal=3"), 2,
           "error: unknown key kernal for conv; did you mean 'kernel_size'?", GRAMMAR),
)
