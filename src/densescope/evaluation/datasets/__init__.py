"""Labelled images: which data sets there are, and how their files become class ids."""

from densescope.evaluation.datasets.batches import decode_depths as decode_depths
from densescope.evaluation.datasets.batches import decode_split as decode_split
from densescope.evaluation.datasets.depth import DepthSet as DepthSet
from densescope.evaluation.datasets.depth import check_unit as check_unit
from densescope.evaluation.datasets.depth import open_depth as open_depth
from densescope.evaluation.datasets.folders import DrawnSplit as DrawnSplit
from densescope.evaluation.datasets.folders import find_layout as find_layout
from densescope.evaluation.datasets.folders import open_folders as open_folders
from densescope.evaluation.datasets.labelled import LabelledImages as LabelledImages
from densescope.evaluation.datasets.labelled import open_labelled_images as open_labelled_images
from densescope.evaluation.datasets.layout import IGNORE_INDEX as IGNORE_INDEX
from densescope.evaluation.datasets.layout import DatasetRow as DatasetRow
from densescope.evaluation.datasets.layout import Split as Split
from densescope.evaluation.datasets.opening import find_dataset as find_dataset
from densescope.evaluation.datasets.opening import find_split as find_split
from densescope.evaluation.datasets.opening import open_dataset as open_dataset
from densescope.evaluation.datasets.rows import DATASETS as DATASETS
from densescope.evaluation.datasets.sets import SegmentationSet as SegmentationSet
from densescope.evaluation.datasets.sets import joined_splits as joined_splits
from densescope.evaluation.datasets.sets import overlap as overlap
