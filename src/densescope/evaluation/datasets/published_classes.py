"""Class names of published data sets, and the pixel values of their masks."""

from __future__ import annotations

# Ids 1-150 in order, each by the first of its synonyms in the benchmark's objectInfo150.
_ADE20K = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person,
earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea,
mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion,
base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace,
refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove,
palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light,
truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel,
pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent,
bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle,
lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan,
pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
ADE20K = tuple(_ADE20K.strip().replace("\n", " ").split(", "))


_VOC2012 = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog,
horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
"""
VOC2012 = tuple(_VOC2012.strip().replace("\n", " ").split(", "))


# Official ids 0-33 in order; ``*`` marks the 19 classes that the benchmark evaluates.
_CITYSCAPES = """
unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road*,
sidewalk*, parking, rail track, building*, wall*, fence*, guard rail, bridge, tunnel, pole*,
polegroup, traffic light*, traffic sign*, vegetation*, terrain*, sky*, person*, rider*, car*,
truck*, bus*, caravan, trailer, train*, motorcycle*, bicycle*
"""
FIRST_NON_VOID = 7
CITYSCAPES = tuple(_CITYSCAPES.strip().replace("\n", " ").split(", "))

_CAMVID = (
    "sky, building, pole, road, pavement, tree, sign symbol, fence, car, pedestrian, bicyclist"
)
CAMVID = tuple(_CAMVID.split(", "))
CAMVID_VOID = 11


def cityscapes_19() -> tuple[tuple[str, ...], dict[int, int]]:
    """Names and ``id -> train id`` of the benchmark's classes."""
    kept = [label for label, name in enumerate(CITYSCAPES) if name.endswith("*")]
    names = tuple(CITYSCAPES[label].rstrip("*") for label in kept)
    return names, {label: index for index, label in enumerate(kept)}


def cityscapes_27() -> tuple[tuple[str, ...], dict[int, int]]:
    """Names and ``id -> class`` of all classes but the seven void ones."""
    names = tuple(name.rstrip("*") for name in CITYSCAPES[FIRST_NON_VOID:])
    return names, {FIRST_NON_VOID + index: index for index in range(len(names))}


# Super-class: official label ids (1-182) and names. Things first, in the order in which
# unsupervised segmentation work numbers the 27 classes; the pixelmaps store the id minus one.
_SUPER_CLASSES = """
electronic: 72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone
appliance: 78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator, 83 blender
food: 52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza,
  60 donut, 61 cake
furniture: 62 chair, 63 couch, 64 potted plant, 65 bed, 66 mirror, 67 dining table, 68 window,
  69 desk, 70 toilet, 71 door
indoor: 84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier, 90 toothbrush, 91
  hair brush
kitchen: 44 bottle, 45 plate, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl
accessory: 26 hat, 27 backpack, 28 umbrella, 29 shoe, 30 eye glasses, 31 handbag, 32 tie, 33
  suitcase
animal: 16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25
  giraffe
outdoor: 10 traffic light, 11 fire hydrant, 12 street sign, 13 stop sign, 14 parking meter, 15
  bench
person: 1 person
sports: 34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball
  glove, 41 skateboard, 42 surfboard, 43 tennis racket
vehicle: 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat
ceiling: 102 ceiling-other, 103 ceiling-tile
floor: 101 carpet, 114 floor-marble, 115 floor-other, 116 floor-stone, 117 floor-tile, 118
  floor-wood
food-stuff: 121 food-other, 122 fruit, 153 salad, 170 vegetable
furniture-stuff: 98 cabinet, 107 counter, 108 cupboard, 110 desk-stuff, 112 door-stuff, 123
  furniture-other, 130 light, 133 mirror-stuff, 156 shelf, 161 stairs, 165 table
raw-material: 100 cardboard, 132 metal, 139 paper, 143 plastic
textile: 92 banner, 93 blanket, 104 cloth, 105 clothes, 109 curtain, 131 mat, 137 napkin, 141
  pillow, 152 rug, 167 textile-other, 168 towel
wall: 171 wall-brick, 172 wall-concrete, 173 wall-other, 174 wall-panel, 175 wall-stone, 176
  wall-tile, 177 wall-wood
window: 180 window-blind, 181 window-other
building: 95 bridge, 96 building-other, 128 house, 151 roof, 158 skyscraper, 166 tent
ground: 111 dirt, 125 gravel, 126 ground-other, 136 mud, 140 pavement, 144 platform, 145
  playingfield, 147 railroad, 149 road, 154 sand, 159 snow
plant: 94 branch, 97 bush, 119 flower, 124 grass, 129 leaves, 134 moss, 142 plant-other, 163
  straw, 169 tree
sky: 106 clouds, 157 sky-other
solid: 127 hill, 135 mountain, 150 rock, 160 solid-other, 162 stone, 182 wood
structural: 99 cage, 113 fence, 138 net, 146 railing, 164 structural-other
water: 120 fog, 148 river, 155 sea, 178 water-other, 179 waterdrops
"""
THING_COUNT = 12
# In the list of 91 things, but never annotated in COCO.
COCO_REMOVED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
COCO_UNLABELED = 255


def _parse(table: str) -> dict[str, dict[int, str]]:
    joined = table.strip().replace("\n  ", " ")
    return {
        name: {
            int(item.split(" ", 1)[0]): item.split(" ", 1)[1].strip() for item in items.split(", ")
        }
        for name, items in (line.split(": ") for line in joined.splitlines())
    }


COCO_SUPER_CLASSES = _parse(_SUPER_CLASSES)
COCO_LABELS = dict(sorted(pair for row in COCO_SUPER_CLASSES.values() for pair in row.items()))


def coco_fine() -> tuple[tuple[str, ...], dict[int, int]]:
    """Names and ``pixel value -> class`` of the 171 classes, in the order of the label ids."""
    kept = [label for label in COCO_LABELS if label not in COCO_REMOVED]
    mapping = {label - 1: index for index, label in enumerate(kept)}
    return tuple(COCO_LABELS[label] for label in kept), mapping


def coco_coarse(names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names and ``pixel value -> class`` of super-classes; classes outside ``names`` are absent."""
    mapping = {
        label - 1: index for index, name in enumerate(names) for label in COCO_SUPER_CLASSES[name]
    }
    return tuple(_suffixed(name) for name in names), mapping


def coco_things() -> tuple[str, ...]:
    """The 12 super-classes of things."""
    return tuple(COCO_SUPER_CLASSES)[:THING_COUNT]


def coco_stuff() -> tuple[str, ...]:
    """The 15 super-classes of stuff."""
    return tuple(COCO_SUPER_CLASSES)[THING_COUNT:]


def _suffixed(name: str) -> str:
    if name in coco_things():
        return f"{name}-things"
    return name if name.endswith("-stuff") else f"{name}-stuff"
