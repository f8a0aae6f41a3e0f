"""Does what needs no labels agree with what labels say, and what does each choice cost?"""

from densescope.agreement.correlation import Agreement as Agreement
from densescope.agreement.correlation import AgreementRow as AgreementRow
from densescope.agreement.correlation import agreement_of_run as agreement_of_run
from densescope.agreement.decline import find_degradation as find_degradation
from densescope.agreement.degradation import Degradation as Degradation
from densescope.agreement.judge import RegretRow as RegretRow
from densescope.agreement.kendall import kendall_tau as kendall_tau
from densescope.agreement.losses import losses_by_checkpoint as losses_by_checkpoint
from densescope.agreement.losses import read_losses as read_losses
from densescope.agreement.paper import PAPER_TAU as PAPER_TAU
from densescope.agreement.paper import MeanAgreement as MeanAgreement
from densescope.agreement.paper import mean_agreement as mean_agreement
from densescope.agreement.regret import RegretTable as RegretTable
from densescope.agreement.regret import regret_table as regret_table
