"""Does what needs no labels agree with what labels say, and what does each choice cost?"""

from densescope.correlation.decline import find_degradation as find_degradation
from densescope.correlation.degradation import Degradation as Degradation
from densescope.correlation.judge import RegretRow as RegretRow
from densescope.correlation.kendall import kendall_tau as kendall_tau
from densescope.correlation.losses import losses_by_checkpoint as losses_by_checkpoint
from densescope.correlation.losses import read_losses as read_losses
from densescope.correlation.paper import PAPER_TAU as PAPER_TAU
from densescope.correlation.paper import MeanCorrelation as MeanCorrelation
from densescope.correlation.paper import mean_correlation as mean_correlation
from densescope.correlation.regret import RegretTable as RegretTable
from densescope.correlation.regret import regret_table as regret_table
from densescope.correlation.sets import SetsJudgement as SetsJudgement
from densescope.correlation.sets import verdict_over_sets as verdict_over_sets
from densescope.correlation.tau import Correlation as Correlation
from densescope.correlation.tau import CorrelationRow as CorrelationRow
from densescope.correlation.tau import correlate as correlate
